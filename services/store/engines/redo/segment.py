"""One file of the log: records from its beginning on, in blocks that were filled with zeros before.

A write into blocks that are there already is one synced write of the data alone; a file that grows
syncs its length and its blocks' places, too. So a segment grows by doubling, and is used again and
again: what an earlier use left behind it is older than what the tree has, and is ignored.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress
from pathlib import Path

from services.store.engines.redo.records import BLOCK_BYTES, HEADER_BYTES, blocks_bytes, header

_pwrite = os.pwrite
_open_file = os.open
FIRST_BYTES = 64 << 10
_ZEROS_BYTES = 1 << 20
"""What is filled with zeros in one write."""


class Segment:
    """See the module. Its methods block, except ``fits``; only one of them runs at a time.

    Whatever raises ``OSError`` has written no record: what may stand of one is made unreadable
    before the next is written.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        """Opens the file, and makes it when absent; raises ``OSError``."""
        self.path = path
        self._limit_bytes = limit_bytes
        self._file = _open(path)
        self._filled = os.fstat(self._file).st_size // BLOCK_BYTES * BLOCK_BYTES
        self._end = 0
        """Where the next record begins."""
        self._torn = False
        """Whether a write failed at the end, so that a record may stand there or not."""
        self._buffer = mmap.mmap(-1, FIRST_BYTES)
        """As a write past the system's cache wants it: it begins at a page."""

    def fits(self, payload_bytes: int) -> bool:
        """Whether a record still belongs here. The first one does, however large."""
        return not self._end or self._end + blocks_bytes(payload_bytes) <= self._limit_bytes

    def restart(self) -> None:
        """Begins to use the file again from its beginning."""
        self._end = 0

    def append(self, store_id: bytes, version: int, payload: bytes) -> None:
        """Writes a record; when this returns, it is on the disk."""
        self.mend()
        size = blocks_bytes(len(payload))
        self._grow(self._end + size)
        if size > len(self._buffer):
            self._buffer = mmap.mmap(-1, 2 * size)
        written = HEADER_BYTES + len(payload)
        self._buffer[:HEADER_BYTES] = header(store_id, version, payload)
        self._buffer[HEADER_BYTES:written] = payload
        self._buffer[written:size] = bytes(size - written)
        self._torn = True
        try:
            self._write(memoryview(self._buffer)[:size], self._end)
        except OSError:
            with suppress(OSError):
                self.mend()
            raise
        self._torn = False
        self._end += size

    def mend(self) -> None:
        """Makes unreadable what a failed write may have left at the end."""
        if self._torn:
            self._write(memoryview(mmap.mmap(-1, BLOCK_BYTES)), self._end)
            self._torn = False

    def close(self) -> None:
        """Lets go of the file, and leaves it where it is."""
        os.close(self._file)

    def _grow(self, needed: int) -> None:
        """Fills with zeros what is needed and, so that this is seldom, some more."""
        if self._filled >= needed:
            return
        goal = max(needed, FIRST_BYTES, min(2 * self._filled, self._limit_bytes))
        # Through the system's cache: what is not whole blocks ends at a full disk, not as an error.
        file = os.open(self.path, os.O_WRONLY | os.O_DSYNC)
        try:
            while self._filled < goal:
                zeros = bytes(min(goal - self._filled, _ZEROS_BYTES))
                self._filled += os.pwrite(file, zeros, self._filled)
        except OSError:
            if self._filled < needed:
                raise
        finally:
            os.close(file)

    def _write(self, data: memoryview, at: int) -> None:
        while data:
            written = _pwrite(self._file, data, at)
            if written % BLOCK_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data, at = data[written:], at + written


def _open(path: Path) -> int:
    """Every write is on the disk when it returns; past the system's cache where that can be."""
    flags = os.O_CREAT | os.O_RDWR | os.O_DSYNC
    try:
        file = _open_file(path, flags | os.O_DIRECT, 0o644)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        file = _open_file(path, flags, 0o644)
    return file
