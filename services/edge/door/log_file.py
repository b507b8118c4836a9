"""Follows a log file that another program writes: every whole line is taken, whatever happens.

How far it was read is kept in a file, and only after its lines were taken: lines written while this
process was down are read when it is back, and after a crash some are offered a second time, so
taking one twice must be harmless. A file that was renamed (logrotate, then ``nginx -s reopen``) is
read to its end for as long as something may still be written to it; those rotated while this
process was down are found by their names, which begin with the log's. What cannot be followed: a
copy that is truncated (``copytruncate`` loses lines by itself), and what was compressed before it
was read (``delaycompress``).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.process.logs import get_logger
from services.rpc.errors import ServiceError

log = get_logger(__name__)

Take = Callable[[Sequence[bytes]], Awaitable[None]]
"""Takes lines, without their ends; returns when they need not be offered again."""

_READ_BYTES = 256 * 1024
_HEAD_BYTES = 256
_QUIET_S = 60.0
"""After so long without a new line, nobody writes to a renamed file any more."""
_LONGEST_PAUSE_S = 5.0
_CATCH_UP_S = 1.0
_COMPRESSED = (".gz", ".xz", ".zst", ".bz2")


@dataclass(slots=True, eq=False)
class _Tail:
    """One file, and how far it was read."""

    fd: int
    inode: int
    offset: int = 0
    changed_at: float = field(default_factory=time.monotonic)

    def read(self) -> tuple[list[bytes], int]:
        """The next whole lines, and where they end."""
        size = os.fstat(self.fd).st_size
        if size < self.offset:  # it was truncated
            log.warning("access_log_truncated", lost_from=self.offset)
            self.offset = 0
        data = os.pread(self.fd, _READ_BYTES, self.offset)
        whole, newline, _ = data.rpartition(b"\n")
        if not newline:
            if len(data) < _READ_BYTES:
                return [], self.offset
            log.error("access_log_line_too_long", offset=self.offset)
            return [], self.offset + len(data)
        return whole.split(b"\n"), self.offset + len(whole) + 1


class LogFile:
    """The follower of one log.

    Args:
        path: the log; it may not be there yet.
        position: where it is kept how far the log was read.
        take: gets the lines, in the order of each file; raises ServiceError when they are to be
            offered again later.
        pause_s: how long to wait when there was nothing new.
    """

    def __init__(self, path: Path, position: Path, take: Take, *, pause_s: float = 0.2) -> None:
        self._path = path
        self._position = position
        self._take = take
        self._pause_s = pause_s
        self._tails: list[_Tail] = []
        self._looked_at = time.time()
        self._following: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._caught_up = asyncio.Event()

    def start(self) -> None:
        """Begins to follow, in the background."""
        self._following = asyncio.create_task(self.follow())

    async def stop(self) -> None:
        """Takes what is in the log, and ends. What comes later, the next process reads."""
        if self._following is not None:
            await self.catch_up()
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def catch_up(self) -> None:
        """Returns when what was in the log before was taken; soon, whatever happens."""
        caught_up = self._caught_up
        self._wanted.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP_S):
                await caught_up.wait()

    async def follow(self) -> None:
        """Reads until it is cancelled."""
        pause_s, resumed = self._pause_s, False
        try:
            while True:
                try:
                    if not resumed:
                        await asyncio.to_thread(self._resume)
                        resumed = True
                    self._wanted.clear()
                    caught_up, self._caught_up = self._caught_up, asyncio.Event()
                    while await self._advance():
                        pass
                    caught_up.set()
                    await self._pause()
                    pause_s = self._pause_s
                except (ServiceError, OSError) as error:
                    log.warning("access_log_waits", path=str(self._path), error=repr(error))
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            self._close()

    async def _pause(self) -> None:
        """Lets lines gather, which is cheaper, unless somebody waits for them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause_s):
                await self._wanted.wait()

    async def _advance(self) -> bool:
        """Takes what is new; whether there is more of it already."""
        is_behind, moved = False, False
        for tail, lines, end in await asyncio.to_thread(self._read):
            if lines:
                await self._take(lines)
            is_behind = is_behind or end - tail.offset > _READ_BYTES // 2
            tail.offset, tail.changed_at, moved = end, time.monotonic(), True
        if moved:
            await asyncio.to_thread(self._save)
        return is_behind

    # What follows may block: it runs on a thread, one call at a time.

    def _read(self) -> list[tuple[_Tail, list[bytes], int]]:
        self._look()
        parts = [(tail, *tail.read()) for tail in self._tails]
        self._retire({tail.inode for tail, _, end in parts if end == tail.offset})
        return [part for part in parts if part[2] != part[0].offset]

    def _look(self) -> None:
        """Opens what has appeared since the last look: the log itself, or several rotated ones."""
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            return
        if self._tails and self._tails[-1].inode == inode:
            self._looked_at = time.time()
            return
        known = {tail.inode for tail in self._tails}
        for path in self._rotated():
            stat = path.stat()
            if stat.st_ino not in known and stat.st_mtime >= self._looked_at - _QUIET_S:
                self._open(path)
        if inode not in known:
            self._open(self._path)
        self._tails.sort(key=lambda tail: tail.inode == inode)  # the log itself stands last
        self._looked_at = time.time()

    def _rotated(self) -> list[Path]:
        """The log's older files, the oldest first."""
        files = [
            path
            for path in self._path.parent.glob(f"{self._path.name}[.-]*")
            if path.suffix not in _COMPRESSED
        ]
        return sorted(files, key=lambda path: path.stat().st_mtime)

    def _open(self, path: Path) -> _Tail:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        tail = _Tail(fd, os.fstat(fd).st_ino)
        self._tails.append(tail)
        return tail

    def _retire(self, read_to_the_end: set[int]) -> None:
        """Lets go of renamed files to which nobody writes any more."""
        now = time.monotonic()
        for tail in self._tails[:-1]:
            if tail.inode in read_to_the_end and now - tail.changed_at > _QUIET_S:
                os.close(tail.fd)
                self._tails.remove(tail)

    def _save(self) -> None:
        """Notes how far each file was read. A crash now costs reading some lines again."""
        files = [
            {"inode": tail.inode, "offset": tail.offset, "head": _head(tail)}
            for tail in self._tails
        ]
        partial = self._position.with_name(f"{self._position.name}.partial")
        partial.write_text(json.dumps({"time_s": self._looked_at, "files": files}))
        partial.replace(self._position)

    def _resume(self) -> None:
        """Opens what an earlier process was reading, where it was."""
        self._close()
        known = self._saved()
        if known is None:
            return
        self._looked_at = float(known["time_s"])
        places = {int(each["inode"]): each for each in known["files"]}
        for path in [*self._rotated(), *self._present()]:
            place = places.get(path.stat().st_ino)
            if place is None:
                continue
            tail = self._open(path)
            tail.offset = int(place["offset"])
            if _head(tail) != place["head"]:  # another file, with the inode of one that is gone
                tail.offset = 0

    def _close(self) -> None:
        for tail in self._tails:
            os.close(tail.fd)
        self._tails.clear()

    def _present(self) -> Iterator[Path]:
        if self._path.exists():
            yield self._path

    def _saved(self) -> dict[str, Any] | None:
        try:
            known: dict[str, Any] = json.loads(self._position.read_text())
        except FileNotFoundError:
            return None
        except ValueError:  # of a power failure, say: the whole log is read again
            log.warning("access_log_position_lost", path=str(self._position))
            return None
        return known


def _head(tail: _Tail) -> str:
    """Tells a file from another that got its inode later: a digest of what was read first."""
    return hashlib.sha256(os.pread(tail.fd, min(_HEAD_BYTES, tail.offset), 0)).hexdigest()
