"""Conditional requests: those that we send, those that we answer, and what a 304 changes.

RFC 9111, section 4.3; RFC 9110, section 13.
"""

from __future__ import annotations

import re

from services.edge.origins.fields import (
    Fields,
    end_to_end,
    http_date,
    lines_of,
    value_of,
    without,
)

CONDITIONS = frozenset(
    {b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range"}
)
_TAG = re.compile(r'(?:W/)?"[^"]*"|[^",\s]+')
# What tells of the stored bytes, which a 304 does not change (RFC 9111, section 3.2).
_OF_THE_CONTENT = frozenset({b"content-length", b"content-encoding", b"content-range"})


def conditions(stored: Fields) -> Fields:
    """The fields that ask the origin whether a stored response is still right."""
    found: Fields = []
    etag = value_of(stored, b"etag")
    if etag:
        found.append((b"if-none-match", etag.encode("latin-1")))
    modified = lines_of(stored, b"last-modified")
    if modified and http_date(modified[0]) is not None:
        found.append((b"if-modified-since", modified[0].encode("latin-1")))
    return found


def not_modified(request: Fields, stored: Fields) -> bool:
    """Whether a request's condition makes the answer a 304 (section 4.3.2)."""
    tags = value_of(request, b"if-none-match")
    if tags is not None:
        return _names(tags, value_of(stored, b"etag"))
    since = http_date(value_of(request, b"if-modified-since"))
    if since is None:
        return False
    changed = value_of(stored, b"last-modified") or value_of(stored, b"date")
    changed_at = http_date(changed)
    return changed_at is not None and changed_at <= since


def _names(tags: str, etag: str | None) -> bool:
    if tags.strip() == "*":
        return True
    if not etag:
        return False
    wanted = etag.removeprefix("W/")
    return any(tag.removeprefix("W/") == wanted for tag in _TAG.findall(tags))


def range_applies(if_range: str | None, stored: Fields) -> bool:
    """Whether Range counts: If-Range names what is stored (strong comparison), or is not there."""
    if if_range is None:
        return True
    if_range = if_range.strip()
    if if_range.startswith('"'):
        return if_range == value_of(stored, b"etag")
    moment = http_date(if_range)
    modified_at = http_date(value_of(stored, b"last-modified"))
    made_at = http_date(value_of(stored, b"date"))
    if moment is None or modified_at is None or made_at is None:
        return False
    # A date is strong when it lies so far back that a second change would show (section 8.8.2.2).
    return modified_at == moment and made_at - modified_at >= 1


def tells_of(stored: Fields, news: Fields) -> bool:
    """Whether a 304 is about a stored response: its validator, if it has one, is the same."""
    said = value_of(news, b"etag")
    if said is not None and not said.startswith("W/"):
        return said == value_of(stored, b"etag")
    return True


def freshened(stored: Fields, news: Fields) -> Fields:
    """The fields of a stored response after a 304 or a HEAD that is about it (section 3.2)."""
    news = without(end_to_end(news), _OF_THE_CONTENT)
    replaced = {name for name, _ in news}
    # How old it is was said of another answer.
    return without(stored, replaced | {b"age"}) + news


def still_holds(stored: Fields, head: Fields) -> bool:
    """Whether a 200 to HEAD is about the response that is stored (section 4.3.5)."""
    for name in (b"etag", b"last-modified", b"content-length"):
        said, kept = value_of(head, name), value_of(stored, name)
        if said is not None and kept is not None and said != kept:
            return False
    return True
