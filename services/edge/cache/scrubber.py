"""The slow round through all files of the disk tier, which finds what went bad unseen.

A file that was right when it was stored may not be for ever: disks lose bits, people make mistakes.
Each file is read again, a little at a time, and held against the SHA-256 of what the chain service
sent and had verified by CID; one that differs is forgotten, and fetched again when it is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from services.edge.cache.catalog import StoredObject
from services.edge.cache.disk import DiskCache
from services.edge.cache.files import PASSING, Reread
from services.process.logs import get_logger

log = get_logger(__name__)

_IDLE_S = 10.0  # between rounds: an empty cache is not to be looked at all the time


class Scrubber:
    """Reads everything, again and again.

    Args:
        disk: what is read.
        forget: drops a damaged object, from the memory tier too.
        bytes_per_s: at most so fast; 0 is never.
    """

    def __init__(
        self, disk: DiskCache, forget: Callable[[str], Awaitable[object]], *, bytes_per_s: int
    ) -> None:
        self._disk = disk
        self._forget = forget
        self._bytes_per_s = bytes_per_s

    async def run(self) -> None:
        """Goes round until it is cancelled."""
        while self._bytes_per_s:
            await self.round()
            await asyncio.sleep(_IDLE_S)

    async def round(self) -> int:
        """Looks at every object once; how many were damaged."""
        damaged = 0
        for cid in self._disk.cids():
            stored = self._disk.stored(cid)
            if stored is None or await self._is_right(stored):
                continue
            if self._disk.stored(cid) is stored:
                damaged += 1
                log.error("cache_file_damaged", cid=cid)
                await self._forget(cid)
        return damaged

    async def _is_right(self, stored: StoredObject) -> bool:
        path, size_bytes = self._disk.path_of(stored), stored.info.size_bytes
        try:
            reading = await asyncio.to_thread(Reread, path, size_bytes)
        except OSError as error:
            return error.errno in PASSING
        try:
            while count := await asyncio.to_thread(reading.step):
                await self._pace(count)
        except OSError:
            return False
        finally:
            reading.close()
        is_right = reading.matches(stored.sha256)
        if is_right:
            self._disk.passed(stored)
        return is_right

    async def _pace(self, count: int) -> None:
        if self._bytes_per_s:
            await asyncio.sleep(count / self._bytes_per_s)
