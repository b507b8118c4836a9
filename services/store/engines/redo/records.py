"""The records of the log: what one commit wrote, as bytes, and back.

Format, all numbers little-endian: MAGIC, the id of the store (16 bytes), the version that the
commit made (8), the length of what follows the header (4), the CRC-32 of everything but itself (4),
and then MessagePack of the ranges that were cleared and the keys with their values (nil: cleared).
A record begins at a multiple of BLOCK_BYTES; what its last block has left is zeros.

The id is random and no caller learns it: so nobody can store a value that passes for a record.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from services.store import records

MAGIC = b"tmredo1\n"
STORE_ID_BYTES = 16
BLOCK_BYTES = 4096
_CHECKED = struct.Struct(f"<8s{STORE_ID_BYTES}sQI")
_CRC = struct.Struct("<I")
HEADER_BYTES = _CHECKED.size + _CRC.size


class Changes(NamedTuple):
    """What a commit wrote: its effect is first ``clears``, then ``values``."""

    clears: list[tuple[bytes, bytes]]
    values: dict[bytes, bytes | None]
    """None: the key was cleared."""


class Record(NamedTuple):
    """A record that is whole."""

    store_id: bytes
    version: int
    payload: bytes
    blocks_bytes: int
    """How much of the file it takes."""

    def changes(self) -> Changes:
        """What it says. Raises ``RecordInvalidError`` for what ``encode`` never made."""
        return Changes(*_decode(self.payload))


def encode(changes: Changes) -> bytes:
    """The payload of a record."""
    return records.encode_fields(changes)


def header(store_id: bytes, version: int, payload: bytes) -> bytes:
    """What stands before a payload."""
    checked = _CHECKED.pack(MAGIC, store_id, version, len(payload))
    return checked + _CRC.pack(zlib.crc32(payload, zlib.crc32(checked)))


def blocks_bytes(payload_bytes: int) -> int:
    """The length of a record with its header, in whole blocks."""
    return -(-(HEADER_BYTES + payload_bytes) // BLOCK_BYTES) * BLOCK_BYTES


def read(data: bytes, at: int) -> Record | None:
    """The record at a place of a file, or None where none is whole."""
    if not data.startswith(MAGIC, at) or at + HEADER_BYTES > len(data):
        return None
    _, store_id, version, length = _CHECKED.unpack_from(data, at)
    (crc,) = _CRC.unpack_from(data, at + _CHECKED.size)
    payload = data[at + HEADER_BYTES : at + HEADER_BYTES + length]
    checked = data[at : at + _CHECKED.size]
    if len(payload) < length or zlib.crc32(payload, zlib.crc32(checked)) != crc:
        return None
    return Record(store_id, version, payload, blocks_bytes(length))


_decode = records.decoder(tuple[list[tuple[bytes, bytes]], dict[bytes, bytes | None]])
