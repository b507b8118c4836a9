"""The embedded engine: LMDB, one process, every commit synced to the disk before its answer.

Operations run in the event loop on a snapshot (LMDB reads cost less than a microsecond and a
hand-off to a thread much more); what they wrote goes to the writer thread as one LMDB transaction.
Reads run in the event loop too, unless they turn out to be long: those start again in a thread.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import lmdb

from services.store.engine import Work
from services.store.errors import StoreInUseError, StoreUnavailableError
from services.store.layer import Layer, Snapshot, add_to_counter

T = TypeVar("T")

_VERSION_KEY = b"\xffversion"
"""Where the version of the last commit stands: 8 bytes, big-endian. No other key is as large."""
_FIRST_MAP_BYTES = 1 << 30
_LONG_READ_PAIRS = 100


class _LongReadError(BaseException):
    """A read in the event loop came upon a long range; it passes through operations' handlers."""


class LmdbEngine:
    """See the module. One directory belongs to one engine of one process."""

    lanes = 1

    def __init__(self, directory: Path, *, map_bytes: int = _FIRST_MAP_BYTES) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._owner = _own(directory)
            self._environment = _open(directory, map_bytes)
        except (OSError, lmdb.Error) as error:
            raise StoreUnavailableError(f"cannot open the store in {directory}: {error}") from error
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="lmdb-writer")
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="lmdb-reader")

    async def transact(
        self,
        lane: int,  # noqa: ARG002 (there is one)
        reads: Sequence[bytes],  # noqa: ARG002 (reads need no head start here)
        work: Work[T],
    ) -> tuple[T, int]:
        """As the seam says."""
        with self._environment.begin() as transaction:
            layer, value = work(_LmdbSnapshot(transaction))
            version = _version(transaction)
        if not layer:
            return value, version
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writer, self._commit, layer, version + 1)
        except lmdb.Error as error:
            raise StoreUnavailableError(f"cannot write: {error}") from error
        return value, version + 1

    async def read(self, run: Callable[[Snapshot], T]) -> tuple[T, int]:
        """As the seam says."""
        try:
            return self._read(run, _LONG_READ_PAIRS)
        except _LongReadError:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._readers, self._read, run, 0)

    async def close(self) -> None:
        """As the seam says."""
        self._writer.shutdown()
        self._readers.shutdown()
        self._environment.close()
        os.close(self._owner)

    def _read(self, run: Callable[[Snapshot], T], longest: int) -> tuple[T, int]:
        with self._environment.begin() as transaction:
            return run(_LmdbSnapshot(transaction, longest)), _version(transaction)

    def _commit(self, layer: Layer, version: int) -> None:
        """In the writer thread: one synced LMDB transaction."""
        with self._environment.begin(write=True) as transaction:
            _write(transaction, layer, version)


def _own(directory: Path) -> int:
    """Takes the lock that keeps a second process out; it ends with the process."""
    owner = os.open(directory / "owner.lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(owner)
        raise StoreInUseError(
            f"the store in {directory} is open in another process; an LMDB store serves only one"
        ) from error
    return owner


def _open(directory: Path, map_bytes: int) -> lmdb.Environment:
    return lmdb.open(str(directory), map_size=map_bytes, metasync=True, sync=True, max_spare_txns=4)


def _version(transaction: lmdb.Transaction[bytes]) -> int:
    return int.from_bytes(transaction.get(_VERSION_KEY) or b"", "big")


def _write(transaction: lmdb.Transaction[bytes], layer: Layer, version: int) -> None:
    with transaction.cursor() as cursor:
        for begin, end in layer.cleared:
            found = cursor.set_range(begin or b"\x00")
            while found and cursor.key() < end:
                found = cursor.delete()
        puts = []
        for key, value in layer.values.items():
            if value is None:
                transaction.delete(key)
            else:
                puts.append((key, value))
        for key, delta in layer.deltas.items():
            puts.append((key, add_to_counter(transaction.get(key), delta)))
        stamp = version.to_bytes(8, "big") + b"\x00\x00"
        for number, (prefix, value) in enumerate(layer.appends):
            puts.append((prefix + stamp + number.to_bytes(2, "big"), value))
        puts.append((_VERSION_KEY, version.to_bytes(8, "big")))
        puts.sort()
        cursor.putmulti(puts)


class _LmdbSnapshot:
    """Reads in one LMDB transaction."""

    __slots__ = ("_longest", "_transaction", "get")

    def __init__(self, transaction: lmdb.Transaction[bytes], longest: int = 0) -> None:
        self._transaction = transaction
        self._longest = longest
        self.get: Callable[[bytes], bytes | None] = transaction.get

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys."""
        return [self.get(key) for key in keys]

    def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """The pairs of a range; restarts the read in a thread when they are many."""
        pairs: list[tuple[bytes, bytes]] = []
        with self._transaction.cursor() as cursor:
            if reverse:
                found = cursor.prev() if cursor.set_range(end) else cursor.last()
            else:
                found = cursor.set_range(begin or b"\x00")
            while found:
                key = cursor.key()
                if key < begin or key >= end:
                    break
                pairs.append((key, cursor.value()))
                if len(pairs) == limit:
                    break
                if len(pairs) == self._longest:
                    raise _LongReadError
                found = cursor.prev() if reverse else cursor.next()
        return pairs
