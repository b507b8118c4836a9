"""Stored records: typed Python objects to bytes and back. Knows no domain.

Format: MessagePack arrays, the fields in the order of their declaration. So a record may grow:
fields added at the end with a default are absent in old bytes and ignored by old readers. Fields
are never removed, moved or given another type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

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


RecordInvalidError = msgspec.DecodeError
"""Stored bytes that do not fit their type: damage, or a change that broke the rule above."""
