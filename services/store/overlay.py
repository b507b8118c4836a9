"""What operations wrote but nobody committed yet, laid over a snapshot.

A ``Layer`` holds the writes of one engine transaction over the engine's snapshot; an ``Overlay``
holds those of one operation over the layer. An operation that succeeds is absorbed by the layer;
one that raises is dropped, and so leaves no trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.store.errors import AppendedRangeError, KeyInvalidError, OperationTooLargeError
from services.store.port import (
    MAX_KEY_BYTES,
    MAX_OPERATION_BYTES,
    MAX_VALUE_BYTES,
    STAMP_BYTES,
    ReadTransaction,
)

_LOWEST_STAMP = b"\x00" * STAMP_BYTES
_HIGHEST_STAMP = b"\xff" * STAMP_BYTES
KEY_END = b"\xff"
"""No key is this or larger: engines keep their own bookkeeping there."""


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

    __slots__ = ("_beneath", "_sorted", "appends", "cleared", "deltas", "prefixes", "values")

    def __init__(self, beneath: Snapshot) -> None:
        self._beneath = beneath
        self._sorted: list[bytes] | None = None
        self.cleared: list[tuple[bytes, bytes]] = []
        self.values: dict[bytes, bytes | None] = {}
        """Keys that were set, or (None) cleared one by one."""
        self.deltas: dict[bytes, int] = {}
        """What is added to counters whose value beneath was not looked at."""
        self.appends: list[tuple[bytes, bytes]] = []
        self.prefixes: set[bytes] = set()
        """The prefixes of ``appends``."""

    def __bool__(self) -> bool:
        return bool(self.values or self.appends or self.deltas or self.cleared)

    # reading

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key`` with these writes."""
        if key in self.values:
            return self.values[key]
        if self.prefixes and key[:-STAMP_BYTES] in self.prefixes:
            self._refuse(key)
        value = None if self.cleared and self._is_cleared(key) else self._beneath.get(key)
        if self.deltas and key in self.deltas:
            return add_to_counter(value, self.deltas[key])
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of ``keys``; those that are not written here in one look at the snapshot."""
        if self:
            return [self.get(key) for key in keys]
        return self._beneath.get_many(keys)

    def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """The pairs of a range with these writes merged in."""
        if not self:
            return self._beneath.range(begin, end, limit=limit, reverse=reverse)
        self._refuse_appended(begin, end)
        written = [key for key in (*self.values, *self.deltas) if begin <= key < end]
        # Each written key hides at most one pair beneath, so this many pairs are always enough.
        needed = limit + len(written) if limit else 0
        pairs = self._range_beneath(begin, end, needed, reverse=reverse)
        if written:
            pairs = self._merged(dict(pairs), written, reverse=reverse)
        return pairs[:limit] if limit else pairs

    def _range_beneath(
        self, begin: bytes, end: bytes, limit: int, *, reverse: bool
    ) -> list[tuple[bytes, bytes]]:
        pairs: list[tuple[bytes, bytes]] = []
        gaps = list(self._gaps(begin, end))
        for low, high in reversed(gaps) if reverse else gaps:
            wanted = limit - len(pairs) if limit else 0
            pairs += self._beneath.range(low, high, limit=wanted, reverse=reverse)
            if limit and len(pairs) >= limit:
                break
        return pairs

    def _gaps(self, begin: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        """What the cleared ranges leave of a range."""
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

    def _is_cleared(self, key: bytes) -> bool:
        return any(begin <= key < end for begin, end in self.cleared)

    # writing

    def set(self, key: bytes, value: bytes) -> None:
        """Puts ``value`` at ``key``."""
        self._write(key, value)

    def clear(self, key: bytes) -> None:
        """Removes ``key``."""
        self._write(key, None)

    def _write(self, key: bytes, value: bytes | None) -> None:
        if self.prefixes and key[:-STAMP_BYTES] in self.prefixes:
            self._refuse(key)
        if self.deltas:
            self.deltas.pop(key, None)
        self.values[key] = value

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Removes every key of a range."""
        if begin >= end:
            return
        self._refuse_appended(begin, end)
        for written in (self.values, self.deltas):
            for key in [key for key in written if begin <= key < end]:
                del written[key]
        self.cleared.append((begin, end))

    def add(self, key: bytes, delta: int) -> None:
        """Adds to a counter."""
        if key in self.values:
            self.values[key] = add_to_counter(self.values[key], delta)
        elif self.cleared and self._is_cleared(key):
            self.values[key] = add_to_counter(None, self.deltas.pop(key, 0) + delta)
        else:
            self.deltas[key] = self.deltas.get(key, 0) + delta

    def append(self, prefix: bytes, value: bytes) -> None:
        """Adds an entry whose key the commit completes."""
        self.appends.append((prefix, value))
        self.prefixes.add(prefix)

    def absorb(self, later: Layer) -> None:
        """Makes the writes of a layer over this one part of it."""
        for begin, end in later.cleared:
            self.clear_range(begin, end)
        if self.deltas:
            for key in later.values:
                self.deltas.pop(key, None)
        self.values.update(later.values)
        for key, delta in later.deltas.items():
            self.add(key, delta)
        if later.appends:
            self.appends += later.appends
            self.prefixes |= later.prefixes

    # what was appended

    def _refuse_appended(self, begin: bytes, end: bytes) -> None:
        for prefix in self.prefixes:
            if begin <= prefix + _HIGHEST_STAMP and prefix + _LOWEST_STAMP < end:
                self._refuse(prefix)

    def _refuse(self, key: bytes) -> None:
        raise Deferred(key)


class Overlay(Layer):
    """The transaction that an operation sees; keeps the limits of the port."""

    __slots__ = ("size_bytes",)

    def __init__(self, beneath: Snapshot) -> None:
        super().__init__(beneath)
        self.size_bytes = 0
        """What was read and written so far."""

    def get(self, key: bytes) -> bytes | None:
        """As the port says."""
        value = super().get(key)
        self._count(key, value)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As the port says."""
        values = super().get_many(keys)
        for key, value in zip(keys, values, strict=True):
            self._count(key, value)
        return values

    def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """As the port says."""
        end = min(end, KEY_END)
        if begin >= end:
            return []
        pairs = super().range(begin, end, limit=limit, reverse=reverse)
        self._grow(sum([len(key) + len(value) for key, value in pairs]))
        return pairs

    def set(self, key: bytes, value: bytes) -> None:
        """As the port says."""
        self._count(key, value)
        super().set(key, value)

    def clear(self, key: bytes) -> None:
        """As the port says."""
        self._count(key, None)
        super().clear(key)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """As the port says."""
        self._grow(len(begin) + len(end))
        super().clear_range(begin, min(end, KEY_END))

    def add(self, key: bytes, delta: int) -> None:
        """As the port says."""
        self._count(key, _LOWEST_STAMP)
        super().add(key, delta)

    def append(self, prefix: bytes, value: bytes) -> None:
        """As the port says."""
        self._count(prefix + _LOWEST_STAMP, value)
        super().append(prefix, value)

    def _count(self, key: bytes, value: bytes | None) -> None:
        size = len(key)
        if not 0 < size <= MAX_KEY_BYTES or key >= KEY_END:
            raise KeyInvalidError(
                f"a key has 1 to {MAX_KEY_BYTES} bytes and begins below 0xff: {key[:40]!r}, {size}"
            )
        if value is not None:
            if len(value) > MAX_VALUE_BYTES:
                raise OperationTooLargeError(
                    f"a value has at most {MAX_VALUE_BYTES} bytes, not {len(value)}"
                )
            size += len(value)
        self._grow(size)

    def _grow(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        if self.size_bytes > MAX_OPERATION_BYTES:
            raise OperationTooLargeError(
                f"an operation reads and writes at most {MAX_OPERATION_BYTES} bytes"
            )

    def _refuse(self, key: bytes) -> None:
        raise AppendedRangeError(f"this operation appended under {key[:40]!r} itself")


_: type[ReadTransaction] = Overlay
