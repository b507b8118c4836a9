"""Reads ahead: several fetches of chunks in flight, within a bound of bytes."""

from __future__ import annotations

import asyncio
from collections import deque

from services.chain.dag.layout import Layout
from services.chain.dag.tree import FileTree

_BATCHES_IN_WINDOW = 8
_MAX_BATCH_CHUNKS = 32
_CHUNK_OVERHEAD_BYTES = 512
"""Counted for each chunk besides its data, so that tiny chunks do not fill the memory."""


class Prefetch:
    """The chunks of a range in order, in batches. Close it, whatever happened.

    The batch in the caller's hands and those in flight together stay within the window, except
    that there is always one in flight.
    """

    def __init__(
        self, tree: FileTree, layout: Layout, first: int, stop: int, window_bytes: int
    ) -> None:
        """Read chunks ``first`` up to but not including ``stop``."""
        room = window_bytes // (layout.chunk_bytes + _CHUNK_OVERHEAD_BYTES)
        self._tree = tree
        self._next = first
        self._stop = stop
        self._batch_chunks = min(max(room // _BATCHES_IN_WINDOW, 1), _MAX_BATCH_CHUNKS)
        self._slots = max(min(room // self._batch_chunks, _BATCHES_IN_WINDOW) - 1, 1)
        self._count = 1  # the first chunk alone: the first byte should not wait for a batch
        self._tasks: deque[asyncio.Task[list[memoryview]]] = deque()

    async def next(self) -> list[memoryview]:
        """The data of the next chunks; empty at the end. Errors come where their chunk would."""
        while self._next < self._stop and len(self._tasks) < self._slots:
            await self._launch()
        if not self._tasks:
            return []
        chunks = await self._tasks[0]
        self._tasks.popleft()
        return chunks

    async def close(self) -> None:
        """Cancel what is in flight and wait for its end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _launch(self) -> None:
        count = min(self._count, self._stop - self._next)
        cids = await self._tree.chunk_cids(self._next, count)
        self._tasks.append(asyncio.create_task(self._tree.chunks(self._next, cids)))
        self._next += len(cids)
        self._count = self._batch_chunks
