"""The embedded engine: LMDB, one process, every commit synced to the disk before its answer.

Operations run in the event loop on a snapshot (an LMDB read costs less than a microsecond and a
hand-off to a thread far more); what they wrote goes to the writer thread as one LMDB transaction.
Reads run in the event loop too, unless they turn out to be long: those start again in a thread.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

import lmdb

from services.store.engine import Work
from services.store.engines.lmdb_file import (
    OWNER_FILE,
    check,
    make_directory,
    note_opened,
    sync_directory,
)
from services.store.errors import StoreInUseError, StoreUnavailableError
from services.store.layer import Layer, Snapshot, add_to_counter

T = TypeVar("T")

FIRST_MAP_BYTES = 1 << 30
_VERSION_KEY = b"\xffversion"
"""Where the version of the last commit stands: 8 bytes, big-endian. No other key is as large."""
_LONG_READ_PAIRS = 100
_REMEDIES = {
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): "make room there: writing goes on by itself then",
    (errno.EACCES, errno.EPERM, errno.EROFS): "make it writable for the user of this service",
    (errno.EIO,): "make room there (LMDB says this of a full disk, too) or check the disk",
}
"""By the codes of the system."""
_READER_THREADS = 2


class _LongRead(BaseException):
    """A read in the event loop came upon a long range."""


class LmdbEngine:
    """See the module. Made in the event loop that uses it.

    Raises ``StoreInUseError`` while another engine has the directory, ``StoreUnavailableError``
    when it cannot be opened or written. After a failed write the next one opens it anew, so a disk
    that has room again needs no restart.
    """

    lanes = 1

    def __init__(self, directory: Path, *, map_bytes: int = FIRST_MAP_BYTES) -> None:
        self._loop = asyncio.get_running_loop()
        self._directory = directory
        self._map_bytes = map_bytes
        self._long_reads: set[asyncio.Future[Any]] = set()
        self._exclusive = asyncio.Lock()
        """Held while the map is replaced; long reads start under it."""
        try:
            make_directory(directory)
            self._owner = _own(directory)
        except OSError as error:
            raise self._unavailable("open", error) from error
        try:
            self._environment: lmdb.Environment | None = self._open()
        except BaseException:
            os.close(self._owner)
            raise
        self._writer = _Writer(self._loop)
        self._readers = ThreadPoolExecutor(_READER_THREADS, thread_name_prefix="lmdb-reader")

    async def ready(self, lane: int) -> None:
        """As the seam says: always."""

    async def transact(
        self,
        lane: int,  # noqa: ARG002 (there is one)
        reads: Sequence[bytes],  # noqa: ARG002 (reads need no head start here)
        work: Work[T],
    ) -> tuple[T, int]:
        """As the seam says."""
        if self._environment is None:
            await self._reopen()
        (layer, value), version = self._on_snapshot(work, longest=0)
        if not layer:
            return value, version
        await self._write(layer, version + 1)
        return value, version + 1

    async def read(self, run: Callable[[Snapshot], T]) -> tuple[T, int]:
        """As the seam says."""
        if self._environment is None:
            await self._reopen()
        try:
            return self._on_snapshot(run, longest=_LONG_READ_PAIRS)
        except _LongRead:
            pass
        async with self._exclusive:
            self._open_if_closed()
            pending = self._loop.run_in_executor(self._readers, self._on_snapshot, run)
            self._long_reads.add(pending)
            pending.add_done_callback(self._long_reads.discard)
        return await pending

    async def close(self) -> None:
        """As the seam says."""
        self._writer.close()
        self._readers.shutdown()
        if self._environment is not None:
            self._environment.close()
        os.close(self._owner)

    def _open(self) -> lmdb.Environment:
        """Opens the files; makes sure that their names survive a power failure."""
        try:
            check(self._directory)
            environment = lmdb.open(
                str(self._directory), map_size=self._map_bytes, max_spare_txns=_READER_THREADS + 1
            )
            # The map of an existing store may be larger than what was asked for.
            self._map_bytes = max(self._map_bytes, environment.info()["map_size"])
            sync_directory(self._directory)
            note_opened(self._owner)
        except (OSError, lmdb.Error) as error:
            raise self._unavailable("open", error) from error
        return environment

    def _on_snapshot(self, run: Callable[[Snapshot], T], longest: int = 0) -> tuple[T, int]:
        """Runs ``run`` on the last commit; in the event loop, or (a long read) in a thread."""
        if self._environment is None:
            raise StoreUnavailableError(f"the store in {self._directory} is not open")
        snapshot: _LmdbSnapshot | None = None
        try:
            snapshot = _LmdbSnapshot(self._environment.begin(), longest)
            return run(snapshot), int.from_bytes(snapshot.get(_VERSION_KEY) or b"", "big")
        except lmdb.Error as error:
            raise self._unavailable("read", error) from error
        finally:
            if snapshot is not None:
                snapshot.end()

    async def _write(self, layer: Layer, version: int) -> None:
        """One synced LMDB transaction, with a larger map when the present one is full."""
        while self._environment is not None:
            try:
                return await self._writer.write(_Batch(self._environment, layer, version))
            except lmdb.MapFullError:
                await self._unmap()
                self._map_bytes *= 2
                await self._reopen()
            except lmdb.Error as error:
                # Whether it is there shows when the files are opened anew.
                await self._unmap()
                raise self._unavailable("write", error) from error
        raise StoreUnavailableError(f"the store in {self._directory} is not open")

    async def _unmap(self) -> None:
        """Closes the files. Only where writes are made, so none is in flight."""
        async with self._exclusive:
            await asyncio.gather(*self._long_reads, return_exceptions=True)
            if self._environment is not None:
                self._environment.close()
                self._environment = None

    async def _reopen(self) -> None:
        async with self._exclusive:
            self._open_if_closed()

    def _open_if_closed(self) -> None:
        if self._environment is None:
            self._environment = self._open()

    def _unavailable(self, what: str, error: Exception) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"cannot {what} the store in {self._directory}: {error}{_remedy(error)}"
        )


def _remedy(error: Exception) -> str:
    """What to do about an error of the system; LMDB keeps only its text."""
    for codes, remedy in _REMEDIES.items():
        if any(os.strerror(code) in str(error) for code in codes):
            return f"; {remedy}"
    return ""


def _own(directory: Path) -> int:
    """Takes the lock that keeps others out; it ends with the process, however that ends."""
    owner = os.open(directory / OWNER_FILE, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(owner)
        raise StoreInUseError(
            f"the store in {directory} is open in another process; an LMDB store serves only one"
        ) from error
    return owner


class _Batch(NamedTuple):
    """What one LMDB transaction writes."""

    environment: lmdb.Environment
    layer: Layer
    version: int

    def commit(self) -> None:
        """In the writer thread."""
        layer = self.layer
        with self.environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            for begin, end in layer.cleared:
                found = cursor.set_range(begin or b"\x00")
                while found and cursor.key() < end:
                    found = cursor.delete()
            puts = [(_VERSION_KEY, self.version.to_bytes(8, "big"))]
            for key, value in layer.values.items():
                if value is None:
                    transaction.delete(key)
                else:
                    puts.append((key, value))
            for key, delta in layer.deltas.items():
                puts.append((key, add_to_counter(transaction.get(key), delta)))
            # A stamp has the form of FoundationDB's: version, order of the commit, order within it.
            stamp = self.version.to_bytes(8, "big") + b"\x00\x00"
            for number, (prefix, value) in enumerate(layer.appends):
                puts.append((prefix + stamp + number.to_bytes(2, "big"), value))
            puts.sort()
            cursor.putmulti(puts)


class _Writer:
    """The thread that writes. Leaner than an executor: one wake-up each way for a commit."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._batches: SimpleQueue[tuple[_Batch, asyncio.Future[None]] | None] = SimpleQueue()
        # A daemon: a process that ends without closing its store does not wait for it.
        self._thread = threading.Thread(target=self._run, name="lmdb-writer", daemon=True)
        self._thread.start()

    def write(self, batch: _Batch) -> asyncio.Future[None]:
        """Commits a batch; the future ends when it is synced, or with its error."""
        synced: asyncio.Future[None] = self._loop.create_future()
        self._batches.put((batch, synced))
        return synced

    def close(self) -> None:
        """Ends the thread after what it was handed."""
        self._batches.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (handed := self._batches.get()) is not None:
            batch, synced = handed
            error: Exception | None = None
            try:
                batch.commit()
            except Exception as failure:  # noqa: BLE001 (whatever it is, the event loop gets it)
                error = failure
            with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_end, synced, error)


def _end(synced: asyncio.Future[None], error: Exception | None) -> None:
    if synced.done():  # its task was cancelled
        return
    if error is None:
        synced.set_result(None)
    else:
        synced.set_exception(error)


class _LmdbSnapshot:
    """Reads in one LMDB transaction."""

    __slots__ = ("_longest", "_transaction", "get")

    def __init__(self, transaction: lmdb.Transaction[bytes], longest: int) -> None:
        self._transaction = transaction
        self._longest = longest
        self.get: Callable[[bytes], bytes | None] = transaction.get

    def end(self) -> None:
        """Lets go of the transaction, whoever still has this object.

        LMDB has few places for readers, and one is free again when nothing refers to its
        transaction any more. The frames in the traceback of an error must not be what does.
        """
        self._transaction.abort()
        del self._transaction, self.get

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys."""
        return [self.get(key) for key in keys]

    def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """The pairs of a range. Raises ``_LongRead`` when they are many."""
        pairs: list[tuple[bytes, bytes]] = []
        with self._transaction.cursor() as cursor:
            if reverse:
                found = cursor.prev() if cursor.set_range(end) else cursor.last()
            else:
                found = cursor.set_range(begin or b"\x00")
            if not found:
                return pairs
            for pair in cursor.iterprev() if reverse else cursor.iternext():
                if not begin <= pair[0] < end:
                    break
                pairs.append(pair)
                if len(pairs) == limit:
                    break
                if len(pairs) == self._longest:
                    raise _LongRead
        return pairs
