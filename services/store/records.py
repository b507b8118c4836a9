"""Stored records: typed Python objects to bytes and back. Knows no domain.

Format: MessagePack arrays, the fields in the order of their declaration. So a record may grow:
fields added at the end with a default are absent in old bytes and ignored by old readers. Fields
are never removed, moved or given another type.

A service that must not work with damaged data seals its records: behind the value stands a checksum
of CHECK_BYTES, the CRC-32 of the key and the value, little-endian. It finds every flipped byte, and
a record that stands at another key than it was written to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar
from zlib import crc32

import msgspec

from services.store.errors import RecordDamagedError

R = TypeVar("R")


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The base of what services store. Immutable; ``changed`` makes an altered copy."""


class WorkingRecord(msgspec.Struct, array_like=True, gc=False):
    """A record that one operation alters in place, several times, before it writes it back."""


encode: Callable[[Record | WorkingRecord], bytes] = msgspec.msgpack.Encoder().encode
"""The bytes of a record; the same for equal records."""

encode_fields: Callable[[tuple[object, ...]], bytes] = msgspec.msgpack.Encoder().encode
"""What ``encode`` gives for a record with these fields; last ones with a default may be left out.

Faster for a record that is written and not looked at.
"""

changed = msgspec.structs.replace
"""``changed(record, field=value)``: a copy with some fields replaced."""


def decoder(kind: type[R]) -> Callable[[bytes], R]:
    """What turns bytes that ``encode`` made back into a ``kind``; make it once, at import.

    It raises ``RecordInvalidError`` for bytes that are no such record.
    """
    return msgspec.msgpack.Decoder(kind).decode


CHECK_BYTES: Final = 4
_INTACT: Final = 0x2144DF1C
"""The CRC-32 of anything that ends with its own CRC-32."""


def sealed(key: bytes, value: bytes) -> bytes:
    """A value with the checksum that it has at a key."""
    return value + crc32(key + value).to_bytes(CHECK_BYTES, "little")


def is_intact(key: bytes, stored: bytes) -> bool:
    """Whether what stands at a key was sealed for it and is undamaged."""
    return crc32(key + stored) == _INTACT


def unsealed(key: bytes, stored: bytes) -> bytes:
    """The value in what stands at a key; raises ``RecordDamagedError``."""
    if crc32(key + stored) != _INTACT:
        raise RecordDamagedError(key)
    return stored[:-CHECK_BYTES]


def sealed_record(key: bytes, record: Record | WorkingRecord) -> bytes:
    """The bytes of a record with the checksum that it has at a key."""
    encoded = encode(record)
    return encoded + crc32(key + encoded).to_bytes(CHECK_BYTES, "little")


def sealed_decoder(kind: type[R]) -> Callable[[bytes, bytes], R]:
    """What turns a key, and what ``sealed_record`` made for it, back into a ``kind``.

    It raises ``RecordDamagedError``.
    """
    decode = decoder(kind)

    def decode_sealed(key: bytes, stored: bytes) -> R:
        if crc32(key + stored) != _INTACT:
            raise RecordDamagedError(key)
        try:
            return decode(stored[:-CHECK_BYTES])
        except (RecordInvalidError, UnicodeDecodeError) as error:
            raise RecordDamagedError(key, str(error)) from error

    return decode_sealed


RecordInvalidError = msgspec.DecodeError
"""Stored bytes that do not fit their type: damage, or a change that broke the rule above."""
