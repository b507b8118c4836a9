"""The body of a response: it grows while it arrives, and many read it, each at its own pace.

What is to be kept stays in memory while it is small, and goes to a file when it is not. What turns
out to be too large to keep, or finds no room, is only passed on from then on: a few pieces are
held, and the origin waits for the slowest reader.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from services.edge.origins.errors import OriginUnavailableError
from services.process.logs import get_logger

log = get_logger(__name__)

PIECE_BYTES = 256 * 1024
_WINDOW_BYTES = 1024 * 1024


class Room(Protocol):
    """Where bodies are kept, within bounds."""

    @property
    def directory(self) -> Path:
        """Of the files."""

    @property
    def threads(self) -> Executor:
        """Where files are read and written."""

    @property
    def memory_object_bytes(self) -> int:
        """Larger bodies go to files."""

    @property
    def max_object_bytes(self) -> int:
        """Larger bodies are not kept."""

    def claim(self, memory: int, disk: int) -> bool:
        """Makes room for so many bytes more; False when there is none."""

    def free(self, memory: int, disk: int) -> None:
        """Gives room back."""


@dataclass(eq=False, slots=True)
class Reader:
    """One who reads, and how far they are."""

    position: int


class TooLateError(Exception):
    """The beginning of the body is gone already."""


class Body:
    """A body; written by one, with ``append`` and then ``finish`` or ``fail``."""

    def __init__(self, room: Room) -> None:
        self.size = 0
        """Of what has arrived."""
        self.complete = False
        self.kept = True
        """Whether all of it is held here."""
        self._room = room
        self._error: OriginUnavailableError | None = None
        self._starts: list[int] = []
        self._pieces: list[bytes] = []
        self._path: Path | None = None
        self._file: int | None = None
        self._file_bytes = 0
        self._memory_bytes = 0
        self._readers: set[Reader] = set()
        self._grown = asyncio.Event()
        self._read = asyncio.Event()
        self._is_written = False
        """Whether a thread has the file."""
        self._dropped = False

    @property
    def in_use(self) -> bool:
        """Whether somebody reads it, or it still grows."""
        return bool(self._readers) or not self.complete

    @property
    def on_disk(self) -> bool:
        """Whether it is in a file."""
        return self._file is not None

    def join(self, first: int = 0) -> Reader:
        """Begins to read at ``first``; to be ended with ``leave``.

        Raises TooLateError, and OriginUnavailableError when the rest never came.
        """
        held_from = self._starts[0] if self._starts else self.size
        is_gone = self._dropped and not self._readers
        if is_gone and self._error is not None:
            raise self._error
        if is_gone or self._file_bytes <= first < held_from:
            raise TooLateError
        reader = Reader(first)
        self._readers.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        """Ends reading."""
        self._readers.discard(reader)
        self._read.set()
        if self._dropped:
            self.drop()

    async def pieces(
        self, reader: Reader, length: int | None = None
    ) -> AsyncGenerator[bytes | memoryview]:
        """The bytes from where the reader is, as they arrive; all of them without a length.

        Raises OriginUnavailableError when the rest will never come.
        """
        end = None if length is None else reader.position + length
        while end is None or reader.position < end:
            piece = await self._next(reader.position)
            if end is not None:
                piece = piece[: end - reader.position]
            if not piece:
                return
            yield piece
            reader.position += len(piece)
            self._read.set()

    async def whole(self) -> int:
        """Waits until all of it is here; its size.

        Raises OriginUnavailableError when it never will be, or is not kept.
        """
        while not self.complete:
            if self._error is not None:
                raise self._error
            if not self.kept:
                raise OriginUnavailableError("The answer is too long for HTTP/1.0.")
            await self._grown.wait()
        return self.size

    async def append(self, data: bytes) -> None:
        """Adds a piece; waits while what is only passed on is not read."""
        if self.kept:
            await self._keep(data)
        else:
            await self._window()
            self._hold(data)
        self.size += len(data)
        self._tell()

    def finish(self) -> None:
        """That was all."""
        if len(self._pieces) > 1 and self.kept:
            self._pieces, self._starts = [b"".join(self._pieces)], [self._starts[0]]
        self.complete = True
        self._tell()

    def fail(self, error: OriginUnavailableError) -> None:
        """The rest will never come."""
        self._error = error
        self._tell()

    def drop(self) -> None:
        """Forgets the bytes, as soon as nobody reads them any more."""
        self._dropped = True
        if self._readers or self._is_written:
            return
        self._room.free(self._memory_bytes, self._file_bytes)
        self._pieces, self._starts, self._memory_bytes = [], [], 0
        if self._file is not None and self._path is not None:
            os.close(self._file)
            self._path.unlink(missing_ok=True)
            self._file, self._file_bytes = None, 0

    async def _next(self, position: int) -> bytes | memoryview:
        """What there is at a position, as soon as there is something; nothing at the end."""
        while True:
            if self._file is not None and position < self._file_bytes:
                return await self._from_file(self._file, position)
            if position < self.size:
                index = bisect_right(self._starts, position) - 1
                skipped = position - self._starts[index]
                return memoryview(self._pieces[index])[skipped : skipped + PIECE_BYTES]
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._grown.wait()

    async def _from_file(self, file: int, position: int) -> bytes:
        length = min(PIECE_BYTES, self._file_bytes - position)
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(self._room.threads, os.pread, file, length, position)
        if not data:
            raise OriginUnavailableError("The stored answer cannot be read.")
        return data

    async def _keep(self, data: bytes) -> None:
        total, room = self.size + len(data), self._room
        if total > room.max_object_bytes:
            self.kept = False
        elif self._file is None and total <= room.memory_object_bytes:
            self.kept = room.claim(len(data), 0)
        else:
            self.kept = await self._spill(data)
            if self.kept:
                return
        self._hold(data)
        self._memory_bytes += len(data) if self.kept else 0

    async def _spill(self, data: bytes) -> bool:
        """Writes to the file what is in memory, and a piece; whether that went well."""
        data = b"".join([*self._pieces, data])
        if not self._room.claim(0, len(data)):
            return False
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(self._room.threads, self._write, data)
        self._is_written = True
        writing.add_done_callback(partial(self._wrote, len(data)))
        with suppress(OSError):
            # Whoever is cancelled here leaves, but a thread has the file until it is done.
            await asyncio.shield(writing)
            return True
        return False

    def _wrote(self, length: int, writing: asyncio.Future[None]) -> None:
        """A thread is done with the file, whether or not somebody waited for that."""
        self._is_written = False
        error = writing.exception()
        if error is None:
            self._file_bytes += length
            self._room.free(self._memory_bytes, 0)
            self._pieces, self._starts, self._memory_bytes = [], [], 0
        else:
            log.warning("origin_body_not_kept", error=str(error))
            self._room.free(0, length)
        if self._dropped:
            self.drop()

    def _write(self, data: bytes) -> None:
        """In a thread."""
        if self._file is None:
            path = self._room.directory / f"{id(self):x}"
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            self._path = path
        view, at = memoryview(data), self._file_bytes
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written

    def _hold(self, data: bytes) -> None:
        self._starts.append(self.size)
        self._pieces.append(data)

    async def _window(self) -> None:
        """Forgets what everybody has read; waits until the slowest reader is near enough."""
        while True:
            self._read.clear()
            if not self._readers:
                raise OriginUnavailableError("Nobody reads it any more.")
            slowest = min(reader.position for reader in self._readers)
            while self._pieces and self._starts[0] + len(self._pieces[0]) <= slowest:
                del self._pieces[0], self._starts[0]
            if self.size - max(slowest, self._file_bytes) <= _WINDOW_BYTES:
                return
            await self._read.wait()

    def _tell(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()
