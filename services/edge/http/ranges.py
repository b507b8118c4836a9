"""Byte ranges and conditions of requests (RFC 9110, sections 13 and 14).

One range at a time: a request for several, or one that is not well-formed, gets the whole object,
as the RFC allows. An object's only validator is its CID, as a strong ETag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.chain.errors import RangeNotSatisfiableError

# 18 digits: more than any object has, and no room for absurdly long numbers.
_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE).fullmatch
_ETAG = re.compile(r'(W/)?"([^"]*)"')


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A part of an object: ``length`` bytes from ``first``."""

    first: int
    length: int

    def content_range(self, size_bytes: int) -> bytes:
        """As Content-Range has it."""
        return b"bytes %d-%d/%d" % (self.first, self.first + self.length - 1, size_bytes)


def byte_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """The part that a Range header asks for; None for the whole object.

    Raises RangeNotSatisfiableError when the object has no byte of it.
    """
    match = _RANGE(header) if header else None
    if match is None:
        return None
    first_text, last_text = match.groups()
    if not first_text:
        return _suffix(last_text, size_bytes)
    first = int(first_text)
    last = int(last_text) if last_text else size_bytes - 1
    if last_text and last < first:
        return None
    if first >= size_bytes:
        raise _unsatisfiable(size_bytes)
    return ByteRange(first, min(last, size_bytes - 1) - first + 1)


def _suffix(text: str, size_bytes: int) -> ByteRange | None:
    """The last bytes, as many as ``text`` says; ``bytes=-`` is not well-formed."""
    if not text:
        return None
    length = min(int(text), size_bytes)
    if length == 0:
        raise _unsatisfiable(size_bytes)
    return ByteRange(size_bytes - length, length)


def _unsatisfiable(size_bytes: int) -> RangeNotSatisfiableError:
    return RangeNotSatisfiableError(
        f"The object has {size_bytes} bytes.", metadata={"size_bytes": str(size_bytes)}
    )


def any_match(header: str | None, cid: str) -> bool:
    """Whether an If-None-Match header names the object (weak comparison: ``W/`` counts)."""
    if header is None:
        return False
    return header.strip() == "*" or any(tag == cid for _, tag in _ETAG.findall(header))


def none_matches(header: str | None, cid: str) -> bool:
    """Whether an If-Match header rules the object out (strong comparison: ``W/`` never matches)."""
    if header is None or header.strip() == "*":
        return False
    return not any(tag == cid and not weak for weak, tag in _ETAG.findall(header))


def range_applies(if_range: str | None, cid: str) -> bool:
    """Whether Range is heeded: always, unless If-Range names something else (or a date)."""
    return if_range is None or if_range.strip() == f'"{cid}"'
