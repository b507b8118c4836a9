"""The cluster engine: FoundationDB 7.3 by its Python binding.

The binding's own asyncio support is dead code on current Python, so: operations and commits, which
block, run in a bounded thread pool, and what is only asked is bridged to the event loop by
``on_ready``. Every wait ends: each transaction has a timeout, after which its commit may still land
(``services.store.optimistic`` deals with that).

The binding is pure Python and always importable; it needs the client library ``libfdb_c`` as soon
as a database is opened. This is the only module that uses it (``keys`` uses its tuple layer, which
needs no library).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import fdb  # type: ignore[import-untyped]  # the binding ships no types

from services.store.errors import (
    EngineMissingError,
    OperationTooLargeError,
    StoreUnavailableError,
)
from services.store.layer import Layer, Snapshot
from services.store.optimistic import (
    MARK_BYTES,
    MARKERS,
    MARKERS_END,
    AttemptFailed,
    CommitUnknown,
    Conflict,
)
from services.store.port import MAX_OPERATION_BYTES

T = TypeVar("T")
Native = Any
"""An object of the binding, which ships no types."""

API_VERSION = 730
"""Of the binding that pyproject.toml pins; the client library must be of the same line."""
LANES = 16
READERS = 16
_TIMEOUT_MS = 5_000
_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.5
_STAMP = b"\x00" * 10
_NOT_COMMITTED = 1020
"""FoundationDB's error code for a conflict."""
_MISUSE_CODES = range(2000, 3000)
"""FoundationDB's error codes for what a client may not do."""
_STALE_MARKER_VERSIONS = 24 * 3600 * 1_000_000
"""A day: the cluster's version advances by about a million a second."""


class FoundationDatabase:
    """A directory of a cluster: a ``services.store.optimistic.Database``. Made by ``open``."""

    def __init__(self, database: Native, prefix: bytes) -> None:
        self._database = database
        self.prefix = prefix
        self.loop = asyncio.get_running_loop()
        self.workers = ThreadPoolExecutor(LANES + READERS, thread_name_prefix="fdb")

    @classmethod
    async def open(cls, cluster_file: Path | None, directory: str) -> FoundationDatabase:
        """Opens a directory ("a/b": b in a), making it when absent.

        Without a file, the client library's default one is used. Raises ``EngineMissingError``, or
        ``StoreUnavailableError`` when the cluster does not answer.
        """
        database = _connect(cluster_file)
        prefix = await asyncio.to_thread(_open_directory, database, _path(directory))
        return cls(database, prefix)

    def begin(self) -> FoundationAttempt:
        """As the seam says."""
        transaction = _transaction(self._database)
        # Layers show operations what they wrote; the client library need not do it again.
        transaction.options.set_read_your_writes_disable()
        return FoundationAttempt(self, transaction)

    async def pause(self, failures: int) -> None:
        """As the seam says: doubling, with full jitter."""
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures, 10))
        await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 (jitter)

    async def close(self) -> None:
        """As the seam says. The binding keeps its connection for the life of the process."""
        self.workers.shutdown()


class FoundationAttempt:
    """One transaction."""

    def __init__(self, database: FoundationDatabase, transaction: Native) -> None:
        self._database = database
        self._prefix = database.prefix
        self._transaction = transaction
        self._loop = database.loop

    async def marked(self, marker: bytes) -> tuple[bytes, int] | None:
        """As the seam says."""
        future = self._transaction.get(self._prefix + marker)
        await self._ready(future)
        with _reading():
            value = future.value
        if value is None:
            return None
        return value[:MARK_BYTES], int.from_bytes(value[MARK_BYTES : MARK_BYTES + 8], "big")

    async def run(self, reads: Sequence[bytes], work: Callable[[Snapshot], T]) -> T:
        """As the seam says."""
        return await self._loop.run_in_executor(self._database.workers, self._run, reads, work)

    def _run(self, reads: Sequence[bytes], work: Callable[[Snapshot], T]) -> T:
        """In a worker thread."""
        snapshot = _FoundationSnapshot(self._transaction, self._prefix, reads)
        # Work that reads nothing would else get its read version only as it commits, perhaps after
        # the next attempt did, and so miss that one's marker.
        with _reading():
            self._transaction.get_read_version().wait()
        return work(snapshot)

    async def read_version(self) -> int:
        """As the seam says."""
        future = self._transaction.get_read_version()
        await self._ready(future)
        with _reading():
            return int(future.wait())

    async def commit(self, layer: Layer, marker: bytes, mark: bytes) -> int:
        """As the seam says."""
        return await self._loop.run_in_executor(
            self._database.workers, self._commit, layer, marker, mark
        )

    def _commit(self, layer: Layer, marker: bytes, mark: bytes) -> int:
        """In a worker thread."""
        try:
            self._send(layer, marker, mark).wait()
        except fdb.FDBError as error:
            raise _commit_failure(error) from error
        return int(self._transaction.get_committed_version())

    def _send(self, layer: Layer, marker: bytes, mark: bytes) -> Native:
        """Gives the transaction its writes, in the order in which a layer's take effect."""
        transaction, prefix = self._transaction, self._prefix
        for begin, end in layer.cleared:
            transaction.clear_range(prefix + begin, prefix + end)
        for key, value in layer.values.items():
            if value is None:
                transaction.clear(prefix + key)
            else:
                transaction.set(prefix + key, value)
        for key, delta in layer.deltas.items():
            summand = (delta & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")
            transaction.add(prefix + key, summand)
        for number, (start, value) in enumerate(layer.appends):
            # FoundationDB puts the version in place of the zeros; the last 4 bytes say where.
            place = len(prefix) + len(start)
            key = prefix + start + _STAMP + number.to_bytes(2, "big")
            transaction.set_versionstamped_key(key + place.to_bytes(4, "little"), value)
        transaction.add_read_conflict_key(prefix + marker)
        stamped = mark + _STAMP + len(mark).to_bytes(4, "little")
        transaction.set_versionstamped_value(prefix + marker, stamped)
        return transaction.commit()

    async def _ready(self, future: Native) -> None:
        """Waits, in the event loop, until one of the binding's futures has a result or an error."""
        ready: asyncio.Future[None] = self._loop.create_future()

        def call_back(_: object) -> None:  # in the binding's network thread
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
                self._loop.call_soon_threadsafe(_wake, ready)

        future.on_ready(call_back)
        await ready


class _FoundationSnapshot:
    """Blocking reads in one transaction, each of which it then conflicts on; in a worker thread."""

    def __init__(self, transaction: Native, prefix: bytes, reads: Sequence[bytes]) -> None:
        self._transaction = transaction
        self._prefix = prefix
        self._asked = {key: transaction.get(prefix + key) for key in reads}

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        if key not in self._asked:
            self._asked[key] = self._transaction.get(self._prefix + key)
        with _reading():
            value: bytes | None = self._asked[key].value
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys, all asked for at once."""
        for key in keys:
            if key not in self._asked:
                self._asked[key] = self._transaction.get(self._prefix + key)
        return [self.get(key) for key in keys]

    def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """The pairs of a range."""
        skip, size_bytes = len(self._prefix), 0
        pairs: list[tuple[bytes, bytes]] = []
        mode = fdb.StreamingMode.exact if limit else fdb.StreamingMode.want_all
        with _reading():
            for pair in self._transaction.get_range(
                self._prefix + begin, self._prefix + end, limit, reverse, mode
            ):
                size_bytes += len(pair.key) + len(pair.value)
                if size_bytes > MAX_OPERATION_BYTES:
                    raise OperationTooLargeError(
                        f"a range has more than {MAX_OPERATION_BYTES} bytes"
                    )
                pairs.append((pair.key[skip:], pair.value))
        return pairs


async def destroy(cluster_file: Path | None, directory: str) -> None:
    """Removes a directory with everything in it, for good. Safe to repeat."""
    database = _connect(cluster_file)
    path = _path(directory)
    await asyncio.to_thread(
        _committed, database, lambda transaction: fdb.directory.remove_if_exists(transaction, path)
    )


def _connect(cluster_file: Path | None) -> Native:
    try:
        fdb.api_version(API_VERSION)
    except Exception as error:
        # The binding raises bare exceptions when it does not find or like the library.
        raise EngineMissingError(
            "the foundationdb engine needs the client library libfdb_c 7.3: install the package"
            " foundationdb-clients 7.3 of https://github.com/apple/foundationdb/releases"
            f" ({error})"
        ) from error
    try:
        return fdb.open(None if cluster_file is None else str(cluster_file))
    except fdb.FDBError as error:
        raise StoreUnavailableError(
            f"cannot use the cluster file {cluster_file}: {error}"
        ) from error


def _open_directory(database: Native, path: tuple[str, ...]) -> bytes:
    """The prefix of a directory; sweeps markers of clients that are long gone."""

    def opened(transaction: Native) -> bytes:
        prefix = bytes(fdb.directory.create_or_open(transaction, path).key())
        oldest = transaction.get_read_version().wait() - _STALE_MARKER_VERSIONS
        markers = prefix + MARKERS, prefix + MARKERS_END
        for pair in transaction.snapshot.get_range(*markers, limit=1_000):
            if int.from_bytes(pair.value[MARK_BYTES : MARK_BYTES + 8], "big") < oldest:
                transaction.clear(pair.key)
        return prefix

    return _committed(database, opened)


def _committed(database: Native, change: Callable[[Native], T]) -> T:
    """Runs and commits a change that may be made twice; in a thread."""
    transaction = _transaction(database)
    while True:
        try:
            result = change(transaction)
            transaction.commit().wait()
        except fdb.FDBError as error:
            try:
                transaction.on_error(error).wait()
            except fdb.FDBError as final:
                raise StoreUnavailableError(
                    f"the cluster does not answer: {_text(final)}"
                ) from final
        else:
            return result


def _path(directory: str) -> tuple[str, ...]:
    return tuple(part for part in directory.split("/") if part)


def _transaction(database: Native) -> Native:
    transaction = database.create_transaction()
    transaction.options.set_timeout(_TIMEOUT_MS)
    return transaction


def _text(error: Native) -> str:
    """What an error of the binding says; its own text shows bytes."""
    return f"{error.description.decode()} ({error.code})"


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """An error while reading ends the attempt, past what the operation itself may catch."""
    try:
        yield
    except fdb.FDBError as error:
        raise AttemptFailed(_text(error)) from error


def _commit_failure(error: Native) -> BaseException:
    """What a failed commit means. Whatever is not surely a failure counts as unknown."""
    if error.code == _NOT_COMMITTED:
        return Conflict(_text(error))
    if fdb.predicates.is_retryable_not_committed(error):
        return AttemptFailed(_text(error))
    if _MISUSE_CODES.start <= error.code < _MISUSE_CODES.stop:  # refused before it was sent
        return StoreUnavailableError(f"the commit was refused: {_text(error)}")
    return CommitUnknown(_text(error))
