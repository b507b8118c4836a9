"""Byte ranges (RFC 9110, section 14): which parts of an object a request asks for.

- A Range that is not well-formed, or of another unit than bytes, is ignored: the whole is sent.
- Ranges of which the object has no byte are dropped; when none is left, 416.
- Ranges that overlap or touch are joined, in the place of the first of them; otherwise the order of
  the request is kept. So no byte is ever sent twice.
- More than MAX_RANGES ranges are refused with 416. The whole instead, which the RFC allows too,
  would be sent to, and paid by, somebody who asked for pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from services.chain.errors import RangeNotSatisfiableError

MAX_RANGES = 64

_UNIT = re.compile(r"bytes=", re.IGNORECASE).match
_RANGE = re.compile(r"([0-9]*)-([0-9]*)").fullmatch
_BEYOND = 10**18  # more than any object has; longer numbers need not be read


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A part of an object: ``length`` bytes from ``first``."""

    first: int
    length: int

    @property
    def end(self) -> int:
        """The position after its last byte."""
        return self.first + self.length

    def content_range(self, size_bytes: int) -> bytes:
        """As Content-Range has it."""
        return b"bytes %d-%d/%d" % (self.first, self.end - 1, size_bytes)


def byte_ranges(header: str | None, size_bytes: int) -> tuple[ByteRange, ...]:
    """The parts that a Range header asks for, none of which overlap; none for the whole object.

    Raises RangeNotSatisfiableError when the object has no byte of them, or they are too many.
    """
    wanted = _parsed(header) if header else ()
    if not wanted:
        return ()
    if len(wanted) > MAX_RANGES:
        raise RangeNotSatisfiableError(
            f"At most {MAX_RANGES} ranges are sent at once.",
            metadata={"size_bytes": str(size_bytes)},
        )
    found = [_satisfied(first, last, size_bytes) for first, last in wanted]
    ranges = [found_range for found_range in found if found_range is not None]
    if ranges:
        return _joined(ranges)
    if size_bytes == 0 and any(not first and _number(last) for first, last in wanted):
        return ()  # the last bytes of nothing can be had, but no 206 can say so
    raise RangeNotSatisfiableError(
        f"The object has {size_bytes} bytes.", metadata={"size_bytes": str(size_bytes)}
    )


def range_applies(if_range: str | None, tag: str) -> bool:
    """Whether Range is heeded (RFC 9110, section 13.1.5): no If-Range, or one that names ``tag``.

    A date never holds: objects have no Last-Modified.
    """
    return if_range is None or if_range.strip(" \t") == f'"{tag}"'


def _parsed(header: str) -> list[tuple[str, str]]:
    """First and last position of each range as they were written; empty for what is no range."""
    unit = _UNIT(header)
    if unit is None:
        return []
    texts = (text.strip(" \t") for text in header[unit.end() :].split(","))
    ranges = []
    for text in texts:
        if not text:  # a list may have empty elements
            continue
        match = _RANGE(text)
        if match is None or _is_wrong(match[1], match[2]):
            return []
        ranges.append((match[1], match[2]))
    return ranges


def _is_wrong(first: str, last: str) -> bool:
    if not first:
        return not last
    return bool(last) and _number(last) < _number(first)


def _satisfied(first_text: str, last_text: str, size_bytes: int) -> ByteRange | None:
    """What the object has of a range; None when it has nothing."""
    if first_text:
        first = _number(first_text)
        end = min(_number(last_text) + 1, size_bytes) if last_text else size_bytes
    else:
        first, end = max(0, size_bytes - _number(last_text)), size_bytes
    return ByteRange(first, end - first) if first < end else None


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= 18 else _BEYOND


def _joined(ranges: Iterable[ByteRange]) -> tuple[ByteRange, ...]:
    """Ranges without overlaps: each that meets another is joined to it."""
    places: list[tuple[int, ByteRange]] = []
    for place, each in sorted(enumerate(ranges), key=lambda item: item[1].first):
        if places and each.first <= places[-1][1].end:
            before, last = places.pop()
            end = max(last.end, each.end)
            places.append((min(before, place), ByteRange(last.first, end - last.first)))
        else:
            places.append((place, each))
    return tuple(each for _, each in sorted(places, key=lambda item: item[0]))
