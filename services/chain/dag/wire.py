"""The two shapes of protobuf fields that nodes are made of: varints and length-delimited bytes.

Reading is lenient about order and repetition, and bounded by the input; node.py makes it strict by
writing again what was read. Why no generated messages: docs/dag.md.
"""

from __future__ import annotations

from services.chain.errors import NodeInvalidError

VARINT = 0
DELIMITED = 2
_MAX_VARINT_BYTES = 10


def write_varint(value: int) -> bytes:
    """A non-negative integer, seven bits to a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_integer(number: int, value: int) -> bytes:
    """Field ``number`` (below 16) holding an integer."""
    return bytes((number << 3 | VARINT,)) + write_varint(value)


def write_head(number: int, length: int) -> bytes:
    """What stands before ``length`` bytes in field ``number`` (below 16)."""
    return bytes((number << 3 | DELIMITED,)) + write_varint(length)


def write_bytes(number: int, value: bytes) -> bytes:
    """Field ``number`` (below 16) holding bytes."""
    return write_head(number, len(value)) + value


def read_varint(raw: memoryview, position: int) -> tuple[int, int]:
    """The varint at ``position``, and where the next thing begins."""
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if position >= len(raw):
            raise NodeInvalidError("A node ends in the middle of a number.")
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position
    raise NodeInvalidError("A number in a node is longer than ten bytes.")


def read_bytes(raw: memoryview, position: int) -> tuple[memoryview, int]:
    """The length-delimited bytes at ``position``, uncopied, and where the next thing begins."""
    length, position = read_varint(raw, position)
    if length > len(raw) - position:
        raise NodeInvalidError("A field of a node is longer than the node.")
    return raw[position : position + length], position + length


class Fields:
    """The fields of one message, by number; of a repeated field, the last."""

    __slots__ = ("_values",)

    def __init__(self, raw: memoryview) -> None:
        self._values: dict[int, int | memoryview] = {}
        position = 0
        while position < len(raw):
            key, position = read_varint(raw, position)
            if key & 7 == VARINT:
                self._values[key >> 3], position = read_varint(raw, position)
            elif key & 7 == DELIMITED:
                self._values[key >> 3], position = read_bytes(raw, position)
            else:
                raise NodeInvalidError(f"A field of a node has wire type {key & 7}.")

    def integer(self, number: int, *, bits: int) -> int | None:
        """Field ``number`` as a non-negative signed integer of ``bits``; None when absent."""
        value = self._values.get(number)
        if isinstance(value, memoryview):
            raise NodeInvalidError(f"Field {number} of a node is not a number.")
        if value is not None and value >> (bits - 1):
            raise NodeInvalidError(f"Field {number} of a node is negative or above {bits} bits.")
        return value

    def content(self, number: int) -> memoryview | None:
        """Field ``number`` as bytes, uncopied; None when absent."""
        value = self._values.get(number)
        if isinstance(value, int):
            raise NodeInvalidError(f"Field {number} of a node is a number and not bytes.")
        return value
