"""The tree of a store while it is open: reads of it in threads, writes, and a map that grows.

LMDB reads a file that is mapped whole. When the map is full, or a write failed, the files are
closed and opened anew; so reads in threads are counted, and waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from services.store.engines.disk import unavailable
from services.store.engines.lmdb_file import note_opened
from services.store.engines.lmdb_tree import Tree, TreeError, TreeFullError
from services.store.engines.worker import Worker

T = TypeVar("T")

_READER_THREADS = 2


class TreeAccess:
    """Belongs to the event loop. Raises ``StoreUnavailableError``."""

    def __init__(self, directory: Path, owner: int, map_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._directory = directory
        self._owner = owner
        self._map_bytes = map_bytes
        self._tree: Tree | None = self._open()
        self._exclusive = asyncio.Lock()
        """Held while the map is replaced; reads in threads start under it."""
        self._slots = asyncio.Semaphore(_READER_THREADS)
        self._reads: set[asyncio.Future[Any]] = set()
        self._readers = ThreadPoolExecutor(_READER_THREADS, thread_name_prefix="lmdb-reader")
        self._writer = Worker(self._loop, "lmdb-writer")

    def tree(self) -> Tree:
        """The open tree: after ``ready``, until something is awaited."""
        if self._tree is None:
            self._tree = self._open()
        return self._tree

    async def ready(self) -> None:
        """Waits until the tree is open."""
        if self._tree is None:
            async with self._exclusive:
                self.tree()

    async def read(self, begin: Callable[[Tree], Callable[[], T]]) -> T:
        """Has ``begin`` take what it needs of the tree, and runs in a thread what it gives."""
        async with self._slots:
            async with self._exclusive:
                pending = self._loop.run_in_executor(self._readers, begin(self.tree()))
                self._reads.add(pending)
                pending.add_done_callback(self._reads.discard)
            return await pending

    async def write(self, work: Callable[[Tree], None]) -> None:
        """Runs ``work`` in the thread that writes; once more when the map must grow first."""
        while True:
            await self.ready()
            tree = self.tree()
            try:
                return await self._writer.call(partial(work, tree))
            except TreeFullError:
                await self._close()
                self._map_bytes *= 2
            except TreeError as error:
                # What there is of it shows when the files are opened anew.
                await self._close()
                raise unavailable(self._directory, "write", error) from error

    async def close(self) -> None:
        """Lets go of the files; nothing is in flight any more."""
        self._writer.close()
        self._readers.shutdown()
        if self._tree is not None:
            self._tree.close()

    async def _close(self) -> None:
        """Closes the files. Only where writes are made, so none is in flight."""
        async with self._exclusive:
            await asyncio.gather(*self._reads, return_exceptions=True)
            if self._tree is not None:
                self._tree.close()
                self._tree = None

    def _open(self) -> Tree:
        try:
            tree = Tree(self._directory, self._map_bytes, _READER_THREADS + 1)
            note_opened(self._owner)
        except (OSError, TreeError) as error:
            raise unavailable(self._directory, "open", error) from error
        self._map_bytes = tree.map_bytes
        return tree
