"""What an object's URL must answer: RFC 9110 written down once more, letter by letter.

Nothing here is shared with what it is held against. Where the RFC leaves a choice, the one that
docs/edge.md states is taken:

- a Range that is not well-formed is ignored (section 14.2 allows to ignore or to refuse it);
- of more than 64 ranges none is sent: 416 (section 15.5.17);
- ranges that overlap or touch are joined, in the place of the first (section 15.3.7.2);
- the last bytes of nothing cannot be told by a 206, so the whole, nothing, is sent as 200;
- a field of If-Match or If-None-Match that is no list of entity tags names nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_RANGES = 64
READING = {"GET", "HEAD", "OPTIONS"}
_OWS = " \t"
_DIGITS = "0123456789"

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Resource:
    """What a URL stands for."""

    tag: str
    """The opaque tag of its strong ETag, quotes included."""
    size: int


@dataclass(frozen=True, slots=True)
class Expected:
    """The answer: its status, and the parts of the resource that its body has, in order.

    One part of a 206 stands alone, with Content-Range; several are multipart/byteranges.
    """

    status: int
    parts: tuple[tuple[int, int], ...] = ()
    """First and last position of each."""


def field(fields: Fields, name: str) -> str | None:
    """The value of a field; several lines of one name are one list (section 5.3)."""
    values = [value.strip(_OWS) for each, value in fields if each.lower() == name]
    return ", ".join(values) if values else None


def expected(method: str, fields: Fields, resource: Resource | None, *, has_key: bool) -> Expected:
    """What is answered to a request for ``resource``; None for one that does not exist."""
    if method == "OPTIONS":
        return Expected(204)
    if method not in {"GET", "HEAD"}:
        return Expected(405)
    if not has_key:
        return Expected(401)
    if resource is None:
        return Expected(404)
    return _conditional(method, fields, resource)


def _conditional(method: str, fields: Fields, resource: Resource) -> Expected:
    """Section 13.2.2. Its steps 2 and 4 ask for dates, which the resource does not have."""
    if_match = field(fields, "if-match")
    if if_match is not None and not _holds(if_match, resource.tag, strong=True):
        return Expected(412)
    if_none_match = field(fields, "if-none-match")
    if if_none_match is not None and _holds(if_none_match, resource.tag, strong=False):
        return Expected(304)
    if method == "HEAD":
        return Expected(200)
    whole = Expected(200, ((0, resource.size - 1),) if resource.size else ())
    if_range = field(fields, "if-range")
    if if_range is not None and if_range != resource.tag:
        return whole
    return _ranged(field(fields, "range"), resource.size) or whole


def _ranged(value: str | None, size: int) -> Expected | None:
    """Section 14.2; None for the whole."""
    specs = None if value is None else byte_range_set(value)
    if specs is None:
        return None
    if len(specs) > MOST_RANGES:
        return Expected(416)
    satisfied = [each for spec in specs if (each := satisfy(spec, size)) is not None]
    if satisfied:
        return Expected(206, joined(satisfied))
    if size == 0 and any(first is None and last for first, last in specs):
        return None
    return Expected(416)


Spec = tuple[int | None, int | None]
"""First and last position; only a last one is the length of a suffix."""


def byte_range_set(value: str) -> list[Spec] | None:
    """Section 14.1.1: the ranges of a Range; None for another unit, or when it is malformed."""
    unit, equals, text = value.partition("=")
    if unit.lower() != "bytes" or not equals:
        return None
    specs: list[Spec] = []
    for element in text.split(","):
        spec = element.strip(_OWS)
        if not spec:
            continue
        first, dash, last = spec.partition("-")
        if not dash or any(letter not in _DIGITS for letter in first + last):
            return None
        if not first and not last:
            return None
        parsed = (_integer(first), _integer(last))
        if parsed[0] is not None and parsed[1] is not None and parsed[1] < parsed[0]:
            return None
        specs.append(parsed)
    return specs or None


def _integer(text: str) -> int | None:
    value = None
    for digit in text:
        value = (value or 0) * 10 + _DIGITS.index(digit)
    return value


def satisfy(spec: Spec, size: int) -> tuple[int, int] | None:
    """Section 14.1.2: the first and last position that a range means; None when there is none."""
    first, last = spec
    if first is None:
        wanted = min(last or 0, size)
        return (size - wanted, size - 1) if wanted else None
    if first >= size:
        return None
    return (first, size - 1 if last is None else min(last, size - 1))


def joined(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Joins one range to another until none meets another, each time in the place of the first."""
    found = list(ranges)
    for one in range(len(found)):
        for other in range(one + 1, len(found)):
            (a, b), (c, d) = found[one], found[other]
            if a <= d + 1 and c <= b + 1:
                rest = [each for place, each in enumerate(found) if place != other]
                rest[one] = (min(a, c), max(b, d))
                return joined(rest)
    return tuple(found)


def _holds(value: str, tag: str, *, strong: bool) -> bool:
    """Sections 13.1.1 and 13.1.2: whether a field names the resource with this tag."""
    if value == "*":
        return True
    listed = entity_tags(value)
    return any(each == tag and not (strong and weak) for weak, each in listed or [])


def entity_tags(value: str) -> list[tuple[bool, str]] | None:
    """Section 8.8.3: whether each is weak, and its opaque tag; None for what is no list of them."""
    tags: list[tuple[bool, str]] = []
    position, separated = 0, True
    while position < len(value):
        letter = value[position]
        if letter in _OWS:
            position += 1
        elif letter == ",":
            separated = True
            position += 1
        else:
            weak = value.startswith("W/", position)
            start = position + 2 if weak else position
            end = value.find('"', start + 1)
            if not separated or value[start : start + 1] != '"' or end < 0:
                return None
            if any(not _is_etagc(each) for each in value[start + 1 : end]):
                return None
            tags.append((weak, value[start : end + 1]))
            position, separated = end + 1, False
    return tags or None


def _is_etagc(letter: str) -> bool:
    return letter == "!" or "\x23" <= letter <= "\x7e" or letter >= "\x80"
