"""Header fields: lines as they were sent, and what their values mean (RFC 9110, section 5).

A value that is not what its grammar says is None, never a guess.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Collection, Iterator
from email.utils import formatdate

Fields = list[tuple[bytes, bytes]]
"""Names in lower case, in the order in which they were sent; a name may stand there repeatedly."""

# RFC 9110, section 7.6.1, with what older proxies said to one another.
_OF_THE_CONNECTION = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# What Connection must not name: the message would mean something else without it.
_NEVER_NOMINATED = frozenset({b"cache-control", b"content-length", b"host"})
# A backslash goes with what follows it, in quotes and outside: so a quote that is never closed is
# looked for to the end once, not from every quote anew.
_ELEMENT = re.compile(r'(?:[^",\\]|"(?:[^"\\]|\\.)*"|\\[^,]?|")+')
_DIRECTIVE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:=(.*))?", re.DOTALL).fullmatch
_DIGITS = re.compile(r"[0-9]+", re.ASCII).fullmatch
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DAY, _YEAR = r"(?P<day>\d\d)", r"(?P<year>\d{4})"
_MONTH = r"(?P<month>[a-z]{3})"
_WEEKDAY = r"(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_DATES = [
    re.compile(pattern, re.ASCII | re.IGNORECASE).fullmatch
    for pattern in (
        rf"{_WEEKDAY}, {_DAY} {_MONTH} {_YEAR} {_TIME} GMT",
        rf"{_LONG_WEEKDAY}, {_DAY}-{_MONTH}-(?P<year>\d\d) {_TIME} GMT",
        rf"{_WEEKDAY} {_MONTH} (?P<day>[ \d]\d) {_TIME} {_YEAR}",
    )
]
MOST_SECONDS = 2**31
"""Larger counts of seconds stand for this one (RFC 9111, section 1.2.2)."""


def lines_of(fields: Fields, name: bytes) -> list[str]:
    """The values of all lines of a name."""
    return [value.decode("latin-1") for other, value in fields if other == name]


def value_of(fields: Fields, name: bytes) -> str | None:
    """The value of a name, its lines joined by commas; None when it is not there."""
    lines = lines_of(fields, name)
    return ", ".join(lines) if lines else None


def without(fields: Fields, names: Collection[bytes]) -> Fields:
    """The fields that have none of these names."""
    return [field for field in fields if field[0] not in names]


def end_to_end(fields: Fields) -> Fields:
    """The fields that go on: not those of the connection, nor those that Connection names."""
    nominated = {
        token.lower().encode("latin-1") for token in split_list(value_of(fields, b"connection"))
    }
    return without(fields, _OF_THE_CONNECTION | (nominated - _NEVER_NOMINATED))


def split_list(text: str | None) -> list[str]:
    """The elements of a list, without empty ones; commas in quoted strings do not part."""
    if not text:
        return []
    return [part for each in _ELEMENT.findall(text) if (part := each.strip(" \t"))]


def directives(text: str | None) -> dict[str, str | None]:
    """Cache-Control's directives, by name in lower case; of repeated ones the first.

    A value loses its quotes. What is not a directive is left out.
    """
    found: dict[str, str | None] = {}
    for name, value in _directives(text):
        found.setdefault(name, value)
    return found


def _directives(text: str | None) -> Iterator[tuple[str, str | None]]:
    for element in split_list(text):
        match = _DIRECTIVE(element)
        if match is not None:
            name, value = match.groups()
            yield name.lower(), None if value is None else unquoted(value)


def unquoted(text: str) -> str:
    """A quoted string's contents; other text as it is."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def seconds(text: str | None) -> int | None:
    """A count of seconds (delta-seconds); None when it is none."""
    if text is None or not _DIGITS(text):
        return None
    return min(int(text[:20]), MOST_SECONDS)


def http_date(text: str | None) -> float | None:
    """A moment, in s since 1970, in any of HTTP's three formats (RFC 9110, section 5.6.7)."""
    for matches in _DATES:
        match = matches(text.strip(" \t")) if text else None
        if match is not None:
            return _moment(match.groupdict())
    return None


def _moment(parts: dict[str, str]) -> float | None:
    month = _MONTHS.get(parts["month"].lower())
    day, year = int(parts["day"]), int(parts["year"])
    hour, minute, second = (int(parts[name]) for name in ("hour", "minute", "second"))
    if len(parts["year"]) == 2:
        # More than 50 years ahead is the century before; 2070 is far enough away.
        year += 1900 if year >= 70 else 2000
    if month is None or not (1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    return float(calendar.timegm((year, month, day, hour, minute, second)))


def date_text(moment: float) -> bytes:
    """A moment as Date has it."""
    return formatdate(int(moment), usegmt=True).encode("ascii")
