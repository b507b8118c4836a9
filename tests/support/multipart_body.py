"""Reads multipart/byteranges bodies (RFC 9110, section 14.6; RFC 2046, section 5.1.1), strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TYPE = re.compile(
    r"multipart/byteranges; ?boundary=\"?([0-9A-Za-z'()+_,./:=?-]{1,70})\"?"
).fullmatch
_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/[0-9]+").fullmatch


@dataclass(frozen=True, slots=True)
class BodyPart:
    """One part of a body."""

    content_type: str
    content_range: str
    body: bytes


def parts_of(content_type: str, body: bytes) -> list[BodyPart]:
    """The parts of a body whose Content-Type is given. Raises AssertionError when it is wrong."""
    match = _TYPE(content_type)
    assert match, content_type
    delimiter = b"\r\n--" + match[1].encode("ascii")
    rest = body if body.startswith(b"\r\n") else b"\r\n" + body
    parts: list[BodyPart] = []
    while True:
        assert rest.startswith(delimiter), rest[:100]
        rest = rest.removeprefix(delimiter)
        if rest == b"--\r\n":
            return parts
        head, _, rest = rest.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n"))
        fields = {name.lower(): value for name, value in fields.items()}
        extent = _RANGE(fields["content-range"])
        assert extent, fields
        # By its length: what the bytes of a part look like is no matter.
        size = int(extent[2]) - int(extent[1]) + 1
        parts.append(BodyPart(fields.get("content-type", ""), fields["content-range"], rest[:size]))
        assert len(rest) > size
        rest = rest[size:]
