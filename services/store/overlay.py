"""The transaction that one operation sees: its own writes over its group's, within the limits.

An operation that succeeds is absorbed by the layer beneath; one that raises is dropped, and so
leaves no trace.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.store.errors import AppendedRangeError, KeyInvalidError, OperationTooLargeError
from services.store.layer import LOWEST_STAMP, Layer, Snapshot
from services.store.port import MAX_APPENDS, MAX_KEY_BYTES, MAX_OPERATION_BYTES, MAX_VALUE_BYTES

KEY_END = b"\xff"
"""No key is this or larger: engines keep their own bookkeeping there."""


class Overlay(Layer):
    """An implementation of ``services.store.port.Transaction``."""

    __slots__ = ("size_bytes",)

    def __init__(self, beneath: Snapshot) -> None:
        super().__init__(beneath)
        self.size_bytes = 0
        """What was read and written so far."""

    def get(self, key: bytes) -> bytes | None:
        """As the port says."""
        _check_key(key)
        value = super().get(key)
        self._count(key, value)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As the port says."""
        for key in keys:
            if not 0 < len(key) <= MAX_KEY_BYTES or key >= KEY_END:
                _check_key(key)
        values = super().get_many(keys)
        self._grow(sum(map(len, keys)) + sum([len(value) for value in values if value]))
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
        # Written out, as every debit comes here several times.
        key_bytes, value_bytes = len(key), len(value)
        if not 0 < key_bytes <= MAX_KEY_BYTES or key >= KEY_END:
            _check_key(key)
        self.size_bytes += key_bytes + value_bytes
        if value_bytes > MAX_VALUE_BYTES or self.size_bytes > MAX_OPERATION_BYTES:
            self._refuse_size(value_bytes)
        if self._written is None and not self._prefixes and not self.deltas:
            self.values[key] = value
        else:
            super().set(key, value)

    def clear(self, key: bytes) -> None:
        """As the port says."""
        _check_key(key)
        self._count(key, None)
        super().clear(key)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """As the port says."""
        self._grow(len(begin) + len(end))
        super().clear_range(begin, min(end, KEY_END))

    def add(self, key: bytes, delta: int) -> None:
        """As the port says."""
        _check_key(key)
        self._count(key, LOWEST_STAMP)
        super().add(key, delta)

    def append(self, prefix: bytes, value: bytes) -> None:
        """As the port says."""
        _check_key(prefix + LOWEST_STAMP)
        self._count(prefix, value)
        if len(self.appends) >= MAX_APPENDS:
            raise OperationTooLargeError(f"an operation appends at most {MAX_APPENDS} entries")
        super().append(prefix, value)

    def _count(self, key: bytes, value: bytes | None) -> None:
        value_bytes = 0 if value is None else len(value)
        self.size_bytes += len(key) + value_bytes
        if value_bytes > MAX_VALUE_BYTES or self.size_bytes > MAX_OPERATION_BYTES:
            self._refuse_size(value_bytes)

    def _grow(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        if self.size_bytes > MAX_OPERATION_BYTES:
            raise OperationTooLargeError(
                f"an operation reads and writes at most {MAX_OPERATION_BYTES} bytes"
            )

    def _refuse_size(self, value_bytes: int) -> None:
        if value_bytes > MAX_VALUE_BYTES:
            raise OperationTooLargeError(
                f"a value has at most {MAX_VALUE_BYTES} bytes, not {value_bytes}"
            )
        self._grow(0)

    def _refuse(self) -> None:
        raise AppendedRangeError("an operation cannot read or clear what it appended itself")


def _check_key(key: bytes) -> None:
    if not 0 < len(key) <= MAX_KEY_BYTES or key >= KEY_END:
        raise KeyInvalidError(
            f"a key has 1 to {MAX_KEY_BYTES} bytes and begins below 0xff, not as {key[:40]!r}"
        )
