"""Keys: FoundationDB tuples under a subspace, the same bytes in every engine.

Format: the FoundationDB tuple layer (apple/foundationdb, design/tuple.md). ``fdb.tuple``, which is
pure Python and needs no client library, reads keys back; writing them is done here, several times
faster, because an operation makes more keys than anything else.
"""

from __future__ import annotations

from fdb import tuple as fdb_tuple  # type: ignore[import-untyped]  # fdb ships no types

Part = str | int | bytes

_BYTES, _TEXT, _ZERO = b"\x01", b"\x02", 0x14
_SIZES = [bytes([_ZERO + size]) for size in range(9)]
"""What stands before a whole number of that many bytes."""
_MAX_WHOLE = (1 << 63) - 1


class Subspace:
    """A family of keys that share a prefix: ``Subspace("credits", "wallet").key(account)``."""

    __slots__ = ("prefix",)

    def __init__(self, *parts: Part) -> None:
        self.prefix: bytes = pack(parts)

    def key(self, *parts: Part) -> bytes:
        """The key of ``parts`` in this subspace; sorts as the tuple sorts."""
        return self.prefix + pack(parts)

    def parts(self, key: bytes) -> tuple[Part, ...]:
        """The parts of a key that ``key`` made."""
        return tuple(fdb_tuple.unpack(key, len(self.prefix)))

    def range(self, *parts: Part) -> tuple[bytes, bytes]:
        """The bounds of every key that begins with ``parts`` and goes on."""
        prefix = self.key(*parts)
        return prefix + b"\x00", prefix + b"\xff"


def pack_number(number: int) -> bytes:
    """What ``pack`` gives for one whole number of at most 63 bits that is not negative."""
    size = (number.bit_length() + 7) >> 3
    return _SIZES[size] + number.to_bytes(size, "big")


def pack(parts: tuple[Part, ...]) -> bytes:
    """What ``fdb.tuple.pack`` gives for these types."""
    packed = b""
    for part in parts:
        if type(part) is str:
            packed += _TEXT + part.encode().replace(b"\x00", b"\x00\xff") + b"\x00"
        elif type(part) is int and 0 <= part <= _MAX_WHOLE:
            size = (part.bit_length() + 7) >> 3
            packed += _SIZES[size] + part.to_bytes(size, "big")
        elif type(part) is bytes:
            packed += _BYTES + part.replace(b"\x00", b"\x00\xff") + b"\x00"
        else:
            packed += fdb_tuple.pack((part,))
    return packed
