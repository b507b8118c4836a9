"""What is committed but not yet in the tree beneath: tables in memory, and views over them.

A table's effect is: first its ``clears``, then its ``values``. A view reads a stack of tables over
a snapshot. Tables that nobody writes to any more are read in threads too; only the event loop
writes to one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

from services.store.engines.redo.intervals import Interval, cover, covers, gaps
from services.store.engines.redo.records import Changes
from services.store.layer import Snapshot

_UNWRITTEN: Final = b"unwritten"
"""Stands for "this table says nothing of the key"; compared by identity."""
_SCANNED_KEYS = 64
"""So many unsorted keys are quicker looked through than sorted."""
_SORTED_AT_ONCE = 8_192
"""Keys that one range read sorts at most: a few milliseconds, once in the life of a key."""

_PARTED_AT_ONCE = 2_048
_FAMILY_BYTES = 6

Pairs = list[tuple[bytes, bytes]]


class LongRead(BaseException):
    """A read in the event loop came upon a long range."""


class MemTable:
    """Writes of many commits, of which the last of each key counts."""

    __slots__ = ("_index", "clears", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self.clears: list[Interval] = []
        self._index: tuple[list[list[bytes]], list[bytes]] = ([], [])
        """Keys in sorted runs, the longest first, and the newest unsorted; replaced as a whole,
        so threads that sort at once only do it twice. A key may be in several, or be gone."""

    def __bool__(self) -> bool:
        return bool(self.values or self.clears)

    def absorb(self, changes: Changes) -> None:
        """Makes the writes of a later commit part of this table."""
        for begin, end in changes.clears:
            for key in self.between(begin, end):
                self.values.pop(key, None)
            cover(self.clears, begin, end)
        self.values.update(changes.values)
        self._index[1].extend(changes.values)

    def take(self, changes: Changes) -> None:
        """Makes the writes of a commit all that an empty table has, without an index for ranges."""
        for begin, end in changes.clears:
            cover(self.clears, begin, end)
        self.values = changes.values

    def joined(self, later: MemTable) -> MemTable:
        """A table with the effect of this one and then a later one; both stay as they are."""
        both = MemTable()
        both.values = dict(self.values)
        both.clears = list(self.clears)
        runs, loose = self._index
        both._index = (list(runs), list(loose))
        both.absorb(Changes(later.clears, later.values))
        return both

    def between(
        self, begin: bytes, end: bytes, limit: int = 0, *, reverse: bool = False
    ) -> list[bytes]:
        """The first ``limit`` (0: all) keys of a range in the order asked for.

        Some may have no value here any more.
        """
        runs, loose = self._sorted_index()
        keys = [key for key in loose if begin <= key < end]
        for run in runs:
            low, high = bisect_left(run, begin), bisect_left(run, end)
            if limit and high - low > limit:
                low, high = (high - limit, high) if reverse else (low, low + limit)
            keys += run[low:high]
        keys = sorted(set(keys), reverse=reverse)
        return keys[:limit] if limit else keys

    def _sorted_index(self) -> tuple[list[list[bytes]], list[bytes]]:
        """The index, with a bounded part of the unsorted keys put in order."""
        index = self._index
        runs, loose = index
        if len(loose) <= _SCANNED_KEYS:
            return index
        run = sorted(set(loose[:_SORTED_AT_ONCE]))
        runs = list(runs)
        while runs and len(runs[-1]) < 2 * len(run):
            run = sorted({*run, *runs.pop()})  # no key twice: a part of a run is cut by number
        runs.append(run)
        self._index = index = (runs, loose[_SORTED_AT_ONCE:])
        return index


class View:
    """A snapshot that tables, the newest first, lie over."""

    __slots__ = ("_base", "_longest", "_tables")

    def __init__(self, tables: Sequence[MemTable], base: Snapshot, longest: int = 0) -> None:
        """A range with more than ``longest`` keys (0: any) in one place raises ``LongRead``."""
        self._tables = tables
        self._base = base
        self._longest = longest

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        for table in self._tables:
            value = table.values.get(key, _UNWRITTEN)
            if value is not _UNWRITTEN:
                return value
            if table.clears and covers(table.clears, key):
                return None
        return self._base.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys."""
        if len(self._tables) != 1 or self._tables[0].clears:
            return [self.get(key) for key in keys]
        written, beneath = self._tables[0].values, self._base.get
        return [written[key] if key in written else beneath(key) for key in keys]

    def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """The pairs of a range, as the port says."""
        pairs: Pairs = []
        step = limit
        while begin < end:
            part, low, high = self._part(begin, end, step, reverse=reverse)
            pairs += part
            if limit and len(pairs) >= limit:
                return pairs[:limit]
            begin, end = (begin, low) if reverse else (high, end)
            step *= 2  # much of what was found is cleared
        return pairs

    def _part(
        self, begin: bytes, end: bytes, step: int, *, reverse: bool
    ) -> tuple[Pairs, bytes, bytes]:
        """The pairs of the range's part that ``step`` keys of each source tell all about.

        Gives the part's bounds too; with ``step`` 0 it is the whole range.
        """
        written = []
        for table in self._tables:
            keys = table.between(begin, end, step, reverse=reverse)
            if step and len(keys) == step:
                begin, end = _up_to(keys[-1], begin, end, reverse=reverse)
            if self._longest and len(keys) > self._longest:
                raise LongRead
            written.append(keys)
        pairs = self._beneath(begin, end, step, reverse=reverse)
        if step and len(pairs) == step:
            begin, end = _up_to(pairs[-1][0], begin, end, reverse=reverse)
        if any(written):
            found = sorted(self._merged(dict(pairs), written).items(), reverse=reverse)
            pairs = [pair for pair in found if begin <= pair[0] < end]
        return pairs, begin, end

    def _merged(self, pairs: dict[bytes, bytes], written: list[list[bytes]]) -> dict[bytes, bytes]:
        """The pairs of the snapshot with those keys of each table."""
        for table, keys in zip(reversed(self._tables), reversed(written), strict=True):
            if table.clears:
                pairs = {k: v for k, v in pairs.items() if not covers(table.clears, k)}
            for key in keys:
                value = table.values.get(key, _UNWRITTEN)
                if value is None:
                    pairs.pop(key, None)
                elif value is not _UNWRITTEN:
                    pairs[key] = value
        return pairs

    def _beneath(self, begin: bytes, end: bytes, step: int, *, reverse: bool) -> Pairs:
        """At most ``step`` pairs of the snapshot that no table cleared as part of a range."""
        cleared: list[Interval] = []
        for table in self._tables:
            for low, high in table.clears:
                cover(cleared, low, high)
        pairs: Pairs = []
        parts = gaps(cleared, begin, end)
        for low, high in reversed(parts) if reverse else parts:
            wanted = step - len(pairs) if step else 0
            pairs += self._base.range(low, high, limit=wanted, reverse=reverse)
            if step and len(pairs) >= step:
                break
        return pairs


def _up_to(key: bytes, begin: bytes, end: bytes, *, reverse: bool) -> Interval:
    """The part of a range from where a read begins to ``key``, which belongs to it."""
    return (max(begin, key), end) if reverse else (begin, min(end, key + b"\x00"))


def sorted_keys(table: MemTable, pause: Callable[[], None]) -> list[bytes]:
    """The keys of a table that nobody writes to, in order; sorts some at a time, with pauses.

    Keys of one family mostly came in order, and several families by turns: to part them first
    leaves little to sort.
    """
    keys = list(table.values)
    families: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for at in range(0, len(keys), _PARTED_AT_ONCE):
        for key in keys[at : at + _PARTED_AT_ONCE]:
            families[key[:_FAMILY_BYTES]].append(key)
        pause()
    ordered: list[bytes] = []
    for family in sorted(families):
        ordered += _sorted(families[family], pause)
    return ordered


def _sorted(keys: list[bytes], pause: Callable[[], None]) -> list[bytes]:
    if len(keys) <= _PARTED_AT_ONCE:
        return sorted(keys)
    half = len(keys) // 2
    first, second = _sorted(keys[:half], pause), _sorted(keys[half:], pause)
    pause()
    return sorted(first + second)
