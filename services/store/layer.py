"""What operations of one engine transaction wrote, laid over the engine's snapshot.

A layer reads as if its writes were committed, except for what was appended: an appended key is not
known before the commit, so whatever would touch one is refused.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Protocol

from services.store.port import STAMP_BYTES

LOWEST_STAMP = b"\x00" * STAMP_BYTES
HIGHEST_STAMP = b"\xff" * STAMP_BYTES


class Deferred(BaseException):
    """An operation needs what its engine transaction already appended: run it in the next one."""


class Snapshot(Protocol):
    """What a layer reads: one state of the engine. Bounds are within the legal keys."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys, in one round trip."""

    def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """The pairs of a range, as the port says."""


def add_to_counter(value: bytes | None, delta: int) -> bytes:
    """A little-endian 64-bit counter after an addition; wraps (FoundationDB's ADD on 8 bytes)."""
    present = int.from_bytes((value or b"")[:8], "little")
    return ((present + delta) & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")


class Layer:
    """Writes over a snapshot. Their effect is: first ``cleared``, then everything else."""

    __slots__ = (
        "_appended",
        "_beneath",
        "_prefix_sizes",
        "_prefixes",
        "_written",
        "appends",
        "cleared",
        "deltas",
        "values",
    )

    def __init__(self, beneath: Snapshot) -> None:
        self._beneath = beneath
        self._written: list[bytes] | None = None
        """The keys of ``values`` and ``deltas`` in order; kept up from the first range read on."""
        self._prefixes: set[bytes] = set()
        self._prefix_sizes: set[int] = set()
        self._appended: list[bytes] = []
        """The lowest keys that entries under ``_prefixes`` may get, in order."""
        self.cleared: list[tuple[bytes, bytes]] = []
        self.values: dict[bytes, bytes | None] = {}
        """Keys that were set, or (None) cleared one by one."""
        self.deltas: dict[bytes, int] = {}
        """What is added to counters whose value beneath was not looked at."""
        self.appends: list[tuple[bytes, bytes]] = []

    def __bool__(self) -> bool:
        return bool(self.values or self.appends or self.deltas or self.cleared)

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key`` with these writes."""
        if key in self.values:
            return self.values[key]
        self._refuse_if_appended(key)
        value = None if self.cleared and self._is_cleared(key) else self._beneath.get(key)
        if self.deltas and key in self.deltas:
            return add_to_counter(value, self.deltas[key])
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of ``keys``; those not written here in one look beneath."""
        if not self:
            return self._beneath.get_many(keys)
        direct = [key for key in keys if not self._touches(key)]
        found = dict(zip(direct, self._beneath.get_many(direct), strict=True)) if direct else {}
        return [found[key] if key in found else self.get(key) for key in keys]

    def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """The pairs of a range with these writes merged in."""
        if not self:
            return self._beneath.range(begin, end, limit=limit, reverse=reverse)
        self._refuse_appended(begin, end)
        written = self._written_between(begin, end)
        # Each written key hides at most one pair beneath, so this many are always enough.
        needed = limit + len(written) if limit else 0
        pairs = self._range_beneath(begin, end, needed, reverse=reverse)
        if written:
            pairs = self._merged(dict(pairs), written, reverse=reverse)
        return pairs[:limit] if limit else pairs

    def set(self, key: bytes, value: bytes) -> None:
        """Puts ``value`` at ``key``."""
        self._refuse_if_appended(key)
        self._write(key, value)

    def clear(self, key: bytes) -> None:
        """Removes ``key``."""
        self._refuse_if_appended(key)
        self._write(key, None)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Removes every key of a range."""
        if begin >= end:
            return
        self._refuse_appended(begin, end)
        for key in self._written_between(begin, end):
            self.values.pop(key, None)
            self.deltas.pop(key, None)
        self._written = None
        self.cleared.append((begin, end))

    def add(self, key: bytes, delta: int) -> None:
        """Adds to a counter."""
        if self._touches(key) and key not in self.deltas:
            self._write(key, add_to_counter(self.get(key), delta))
            return
        if self._written is not None and key not in self.deltas:
            insort(self._written, key)
        self.deltas[key] = self.deltas.get(key, 0) + delta

    def append(self, prefix: bytes, value: bytes) -> None:
        """Adds an entry whose key the commit completes."""
        self.appends.append((prefix, value))
        if prefix not in self._prefixes:
            self._prefixes.add(prefix)
            self._prefix_sizes.add(len(prefix))
            insort(self._appended, prefix + LOWEST_STAMP)

    def absorb(self, later: Layer) -> None:
        """Makes the writes of a layer over this one part of it; all of them, or (raising) none.

        The other layer is not used any more.
        """
        if self._prefixes:
            self._refuse_writes(later)
        for begin, end in later.cleared:
            self.clear_range(begin, end)
        if self._written is None and not self.deltas and not self._prefixes:
            if self.values:
                self.values.update(later.values)
            else:
                self.values = later.values
        else:
            for key, value in later.values.items():
                self._write(key, value)
        for key, delta in later.deltas.items():
            self.add(key, delta)
        for prefix, value in later.appends:
            self.append(prefix, value)

    def _write(self, key: bytes, value: bytes | None) -> None:
        known = self.deltas.pop(key, None) is not None if self.deltas else False
        if self._written is not None and not known and key not in self.values:
            insort(self._written, key)
        self.values[key] = value

    def _touches(self, key: bytes) -> bool:
        """Whether reading ``key`` here is not just reading it beneath."""
        if key in self.values or key in self.deltas or self._is_cleared(key):
            return True
        return key[:-STAMP_BYTES] in self._prefixes

    def _is_cleared(self, key: bytes) -> bool:
        return any(begin <= key < end for begin, end in self.cleared)

    def _written_between(self, begin: bytes, end: bytes) -> list[bytes]:
        if self._written is None:
            self._written = sorted((*self.values, *self.deltas))
        return self._written[bisect_left(self._written, begin) : bisect_left(self._written, end)]

    def _range_beneath(
        self, begin: bytes, end: bytes, limit: int, *, reverse: bool
    ) -> list[tuple[bytes, bytes]]:
        """Pairs that the cleared ranges leave."""
        pairs: list[tuple[bytes, bytes]] = []
        gaps = self._gaps(begin, end)
        for low, high in reversed(gaps) if reverse else gaps:
            wanted = limit - len(pairs) if limit else 0
            pairs += self._beneath.range(low, high, limit=wanted, reverse=reverse)
            if limit and len(pairs) >= limit:
                break
        return pairs

    def _gaps(self, begin: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        gaps = []
        for low, high in sorted(self.cleared):
            if low >= end:
                break
            if begin < low:
                gaps.append((begin, low))
            begin = max(begin, high)
        if begin < end:
            gaps.append((begin, end))
        return gaps

    def _merged(
        self, pairs: dict[bytes, bytes], written: list[bytes], *, reverse: bool
    ) -> list[tuple[bytes, bytes]]:
        for key in written:
            if key in self.deltas:
                pairs[key] = add_to_counter(pairs.get(key), self.deltas[key])
            elif (value := self.values[key]) is not None:
                pairs[key] = value
            else:
                pairs.pop(key, None)
        return sorted(pairs.items(), reverse=reverse)

    def _refuse_writes(self, later: Layer) -> None:
        """Refuses writes that would touch what was appended here."""
        for begin, end in later.cleared:
            self._refuse_appended(begin, end)
        for written in (later.values, later.deltas):
            for key in written:
                self._refuse_if_appended(key)

    def _refuse_if_appended(self, key: bytes) -> None:
        if self._prefixes and key[:-STAMP_BYTES] in self._prefixes:
            self._refuse()

    def _refuse_appended(self, begin: bytes, end: bytes) -> None:
        """Refuses a range that may hold an entry which was appended here."""
        if not self._prefixes:
            return
        place = bisect_left(self._appended, begin)
        if place < len(self._appended) and self._appended[place] < end:
            self._refuse()
        # Entries may also begin below the range: then their prefix is one of ``begin`` itself.
        for size in self._prefix_sizes:
            if begin[:size] in self._prefixes and begin[size:] <= HIGHEST_STAMP:
                self._refuse()

    def _refuse(self) -> None:
        raise Deferred
