"""Several ranges in one answer: multipart/byteranges (RFC 9110, section 14.6; RFC 2046)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from services.edge.downloads import Part
from services.edge.http.ranges import ByteRange


@dataclass(frozen=True, slots=True)
class Multipart:
    """A body of several parts."""

    content_type: bytes
    parts: tuple[Part, ...]
    """The bytes of the object, each with the delimiter before it."""
    closing: bytes
    """What ends the body."""


def multipart(ranges: Sequence[ByteRange], size_bytes: int, media_type: bytes) -> Multipart:
    """The body that has these ranges of an object, in this order.

    The boundary is 96 random bits, others each time: no file holds them.
    """
    boundary = secrets.token_hex(12).encode("ascii")

    def head(number: int, part: ByteRange) -> bytes:
        line = b"--%b\r\n" % boundary if number == 0 else b"\r\n--%b\r\n" % boundary
        fields = (media_type, part.content_range(size_bytes))
        return line + b"Content-Type: %b\r\nContent-Range: %b\r\n\r\n" % fields

    return Multipart(
        b"multipart/byteranges; boundary=" + boundary,
        tuple(Part(each.first, each.length, head(n, each)) for n, each in enumerate(ranges)),
        b"\r\n--%b--\r\n" % boundary,
    )
