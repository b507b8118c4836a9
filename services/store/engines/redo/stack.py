"""The tables over the tree: those that commits go to, and the one that the tree is being given."""

from __future__ import annotations

from services.store.engines.redo.memtable import MemTable
from services.store.engines.redo.records import Changes


class Stack:
    """Belongs to the event loop; what it gave to threads it does not change any more."""

    def __init__(self) -> None:
        self._current: list[MemTable] = []
        """The newest first."""
        self._shared = False
        """Whether the newest may not be written to."""
        self.frozen: MemTable | None = None
        """What the tree is being given."""
        self.frozen_version = 0
        """The version of the last commit in it."""
        self.tables: tuple[MemTable, ...] = ()
        """All of them, the newest first; replaced as a whole."""

    def absorb(self, changes: Changes) -> None:
        """Adds the writes of a commit."""
        if self._shared or not self._current:
            self._current.insert(0, MemTable())
            self._shared = False
            self._restack()
        self._current[0].absorb(changes)

    def share(self) -> tuple[MemTable, ...]:
        """The tables as they are now, for a thread to read while commits go on."""
        # Each is at least twice as large as the one above it, so they stay few.
        while len(self._current) > 1:
            newest, older = self._current[:2]
            if len(older.values) > 2 * len(newest.values):
                break
            self._current[:2] = [older.joined(newest)]
        self._restack()
        self._shared = True
        return self.tables

    def turn(self, version: int) -> None:
        """Freezes what there is, up to a version; nothing may be frozen. Commits go over it."""
        while len(self._current) > 1:
            newest, older = self._current[:2]
            self._current[:2] = [older.joined(newest)]
        self.frozen = self._current.pop() if self._current else None
        self.frozen_version = version
        self._shared = False
        self._restack()

    def keys(self) -> int:
        """About how many keys were written since the last turn."""
        return sum(len(table.values) for table in self._current)

    def with_(self, changes: Changes) -> MemTable:
        """What is not frozen and then a later commit, as a table of its own."""
        together = MemTable()
        if not self._current:
            together.take(changes)
            return together
        for table in reversed(self._current):
            together = together.joined(table)
        together.absorb(changes)
        return together

    def clear(self) -> None:
        """Forgets what is not frozen: it is in the tree."""
        self._current = []
        self._shared = False
        self._restack()

    def drop(self) -> None:
        """Forgets what is frozen: it is in the tree."""
        self.frozen = None
        self._restack()

    def __bool__(self) -> bool:
        return bool(self.tables)

    def _restack(self) -> None:
        self.tables = (*self._current, *(() if self.frozen is None else (self.frozen,)))
