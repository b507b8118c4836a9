"""The embedded engine: LMDB behind a redo log; one process, every commit synced before its answer.

Operations run in the event loop on a snapshot (an LMDB read costs less than a microsecond and a
hand-off to a thread far more). What they wrote goes to the log as one record, by one synced write
in a thread, and then to tables in memory, which lie over the tree in every snapshot. When a segment
of the log is full, another thread writes its table to LMDB, while commits go on in the next one.
Reads run in the event loop too, unless they turn out to be long: those start again in a thread.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from services.store.engine import Work
from services.store.engines.disk import own, unavailable
from services.store.engines.lmdb_access import TreeAccess
from services.store.engines.lmdb_tree import Tree, TreeError, TreeSnapshot
from services.store.engines.redo import records
from services.store.engines.redo.checkpoint import write_at_once, write_to
from services.store.engines.redo.log import SEGMENT_BYTES, Log, remove_log
from services.store.engines.redo.memtable import LongRead, MemTable, View
from services.store.engines.redo.records import Changes
from services.store.engines.redo.recovery import LogDamagedError, recover
from services.store.engines.redo.stack import Stack
from services.store.engines.worker import Worker
from services.store.errors import StoreUnavailableError
from services.store.layer import Layer, Snapshot, add_to_counter

T = TypeVar("T")

FIRST_MAP_BYTES = 1 << 30
LARGE_KEYS = 256
"""Commits with so many keys go to the tree at once: there they cost less than in both places."""
_LONG_READ_PAIRS = 100
_SMALL_KEYS = 2_000
"""At most so many keys of earlier commits go with one of those."""


class LmdbEngine:
    """See the module. Made in the event loop that uses it.

    Raises ``StoreInUseError`` while another engine has the directory, ``StoreUnavailableError``
    when it cannot be opened or written, or its log is damaged. What could not be written is tried
    again by the next commit that needs it, so a disk that has room again needs no restart.
    """

    lanes = 1

    def __init__(
        self,
        directory: Path,
        *,
        map_bytes: int = FIRST_MAP_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        large_keys: int = LARGE_KEYS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._large_keys = large_keys
        self._stack = Stack()
        self._version = 0
        """Of the last commit."""
        self._unknown = 0
        """Of a commit to the tree itself that is under way, or may be there or not; else 0."""
        self._log: Log | None = None
        self._checkpoint: asyncio.Task[None] | None = None
        self._hurry = threading.Event()
        """Set while somebody waits for the checkpoint."""
        self._owner = own(directory)
        try:
            self._access = TreeAccess(directory, self._owner, map_bytes)
            self._recover(self._access.tree())
        except BaseException:
            os.close(self._owner)
            raise
        self._log_writer = Worker(self._loop, "log-writer")

    async def ready(self, lane: int) -> None:
        """As the seam says: always."""

    async def transact(
        self,
        lane: int,  # noqa: ARG002 (there is one)
        reads: Sequence[bytes],  # noqa: ARG002 (reads need no head start here)
        work: Work[T],
    ) -> tuple[T, int]:
        """As the seam says."""
        await self._ready()
        version = self._version + 1
        (changes, value), _ = self._on_snapshot(partial(_run, work, version))
        if changes is None:
            return value, self._version
        large = len(changes.values) >= self._large_keys
        if large and self._stack.frozen is None and self._stack.keys() <= _SMALL_KEYS:
            await self._write_at_once(changes, version)
            return value, version
        payload = records.encode(changes)
        log = self._log or await self._begin_log()
        # A large one begins to empty the tables, so that those that follow find them small.
        if not log.fits(len(payload)) or (large and self._stack.frozen is None):
            await self._turn(log)
        try:
            await self._log_writer.call(partial(log.append, version, payload))
        except OSError as error:
            raise unavailable(self._directory, "write", error) from error
        self._stack.absorb(changes)
        self._version = version
        return value, version

    async def read(self, run: Callable[[Snapshot], T]) -> tuple[T, int]:
        """As the seam says."""
        await self._access.ready()
        try:
            return self._on_snapshot(run, _LONG_READ_PAIRS)
        except LongRead:
            pass

        def begin(tree: Tree) -> Callable[[], tuple[T, int]]:
            state = self._begin(tree, 0)
            tables, version = self._over(state, self._stack.share())
            return lambda: (self._on_state(state, View(tables, state), run), version)

        return await self._access.read(begin)

    async def close(self) -> None:
        """As the seam says. What is in the log goes to the tree, and the log goes away."""
        emptied = False
        with suppress(StoreUnavailableError):  # then it stays in the log
            await self._checkpoint_all()
            if self._log is not None:
                await self._access.write(lambda tree: tree.identify(b""))
            emptied = True
        self._log_writer.close()
        if self._log is not None:
            with suppress(OSError):
                self._log.close(empty=emptied)
        await self._access.close()
        os.close(self._owner)

    async def _ready(self) -> None:
        """Opens the tree again if that is needed, and looks what became of an unknown commit."""
        await self._access.ready()
        if self._unknown:
            if self._access.tree().version() == self._unknown:
                self._in_tree(self._unknown)
            self._unknown = 0

    async def _write_at_once(self, changes: Changes, version: int) -> None:
        """Commits to the tree itself, with what the tables hold."""
        table = self._stack.with_(changes)
        self._unknown = version
        await self._access.write(lambda tree: write_at_once(tree, table, version))
        self._unknown = 0
        self._in_tree(version)

    def _in_tree(self, version: int) -> None:
        self._stack.clear()
        self._version = version
        if self._log is not None:
            self._log.restart()

    def _recover(self, tree: Tree) -> None:
        """Takes over what the log has and the tree has not."""
        self._version = tree.version()
        store_id = tree.store_id()
        try:
            for changes in recover(self._directory, store_id, self._version):
                self._stack.absorb(changes)
                self._version += 1
            if store_id:
                self._log = Log(self._directory, store_id, self._segment_bytes)
            else:
                remove_log(self._directory)  # of an orderly end that was not quite finished
        except (OSError, LogDamagedError) as error:
            tree.close()
            raise unavailable(self._directory, "open", error) from error
        if self._stack:
            self._freeze()

    async def _begin_log(self) -> Log:
        """Starts the log, with an id of its own; from then on the tree says that there is one."""
        store_id = os.urandom(records.STORE_ID_BYTES)
        log = Log(self._directory, store_id, self._segment_bytes)
        try:
            await self._log_writer.call(log.begin)
            await self._access.write(lambda tree: tree.identify(store_id))
        except OSError as error:
            raise unavailable(self._directory, "write", error) from error
        except StoreUnavailableError:
            log.close(empty=False)  # the tree may say so already
            raise
        self._log = log
        return log

    def _begin(self, tree: Tree, longest: int) -> TreeSnapshot:
        """The tree as it is now: with the tables as they are now, that is the last commit."""
        try:
            return tree.snapshot(longest)
        except TreeError as error:
            raise unavailable(self._directory, "read", error) from error

    def _on_snapshot(self, run: Callable[[Snapshot], T], longest: int = 0) -> tuple[T, int]:
        """Runs ``run`` on the last commit, in the event loop; gives its version too."""
        state = self._begin(self._access.tree(), longest)
        tables, version = self._over(state, self._stack.tables)
        return self._on_state(
            state, View(tables, state, longest) if tables else state, run
        ), version

    def _over(
        self, state: TreeSnapshot, tables: tuple[MemTable, ...]
    ) -> tuple[tuple[MemTable, ...], int]:
        """The tables that lie over a state of the tree, and the version that this makes.

        A commit to the tree itself may be in the state before it is known to be there.
        """
        if self._unknown and state.version() == self._unknown:
            return (), self._unknown
        return tables, self._version

    def _on_state(self, state: TreeSnapshot, view: Snapshot, run: Callable[[Snapshot], T]) -> T:
        try:
            return run(view)
        except TreeError as error:
            raise unavailable(self._directory, "read", error) from error
        finally:
            state.end()

    async def _turn(self, log: Log) -> None:
        """Goes on to the next segment, once the tree has what was frozen before."""
        await self._checkpoint_frozen()
        try:
            await self._log_writer.call(log.turn)
        except OSError as error:
            raise unavailable(self._directory, "write", error) from error
        self._freeze()

    def _freeze(self) -> None:
        """Has the tables written to the tree, in the background."""
        self._stack.turn(self._version)
        self._checkpoint = self._loop.create_task(self._write_in_background())

    async def _checkpoint_all(self) -> None:
        await self._ready()
        await self._checkpoint_frozen()
        if self._stack:
            self._freeze()
            await self._checkpoint_frozen()

    async def _checkpoint_frozen(self) -> None:
        """Waits until what is frozen is in the tree; tries once more what had failed."""
        self._hurry.set()
        try:
            if self._checkpoint is not None:
                await self._checkpoint
            await self._write_frozen()
        finally:
            self._hurry.clear()

    async def _write_in_background(self) -> None:
        with suppress(Exception):  # it is tried again, and then reported, when its place is needed
            await self._write_frozen()

    async def _write_frozen(self) -> None:
        if (table := self._stack.frozen) is None:
            return
        version = self._stack.frozen_version
        await self._access.write(lambda tree: write_to(tree, table, version, self._hurry))
        self._stack.drop()
        if self._log is not None:
            with suppress(OSError):  # what stays of it is older than the tree
                await self._log_writer.call(self._log.retire)


def _run(work: Work[T], version: int, snapshot: Snapshot) -> tuple[Changes | None, T]:
    layer, value = work(snapshot)
    return (_changes(layer, version, snapshot) if layer else None), value


def _changes(layer: Layer, version: int, snapshot: Snapshot) -> Changes:
    """What a layer writes as the commit of a version, without what depends on the snapshot."""
    values = layer.values
    for key, delta in layer.deltas.items():
        cleared = any(begin <= key < end for begin, end in layer.cleared)
        values[key] = add_to_counter(None if cleared else snapshot.get(key), delta)
    # A stamp has the form of FoundationDB's: version, order of the commit, order within it.
    stamp = version.to_bytes(8, "big") + b"\x00\x00"
    for number, (prefix, value) in enumerate(layer.appends):
        values[prefix + stamp + number.to_bytes(2, "big")] = value
    return Changes(layer.cleared, values)
