"""Preconditions of requests (RFC 9110, section 13), in the order of its section 13.2.2.

An object's only validator is its CID, as a strong entity tag. It has no date: by the letter,
If-Modified-Since and If-Unmodified-Since are then ignored. A field that is not a list of entity
tags names nothing: If-Match fails by it, If-None-Match does not hold anybody up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from services.edge.http.problems import PreconditionFailedError

_TAG = r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"'
_TAGS = re.compile(rf"[ \t,]*(?:{_TAG}[ \t]*(?:,[ \t,]*|\Z))+").fullmatch
_EACH_TAG = re.compile(_TAG).finditer


def not_modified(request: Mapping[str, str], tag: str) -> bool:
    """Whether a GET or HEAD with these headers is answered 304.

    Args:
        request: its headers.
        tag: the entity tag of what would be sent, without its quotes.

    Raises PreconditionFailedError when it is answered 412.
    """
    if_match = request.get("if-match")
    if if_match is not None and not _names(if_match, tag, weakly=False):
        raise PreconditionFailedError
    if_none_match = request.get("if-none-match")
    return if_none_match is not None and _names(if_none_match, tag, weakly=True)


def refuse_if_match(request: Mapping[str, str]) -> None:
    """Refuses what would change something that has no validator: If-Match cannot hold there.

    Raises PreconditionFailedError.
    """
    if "if-match" in request:
        raise PreconditionFailedError


def _names(field: str, tag: str, *, weakly: bool) -> bool:
    """Whether a field names what is there: by ``*``, or by its tag (section 8.8.3.2)."""
    if field.strip(" \t") == "*":
        return True
    return any(each == tag and (weakly or not weak) for weak, each in _tags(field))


def _tags(field: str) -> Iterator[tuple[bool, str]]:
    """The entity tags of a list, whether each is weak; none when it is no such list."""
    if _TAGS(field):
        yield from ((bool(match[1]), match[2]) for match in _EACH_TAG(field))
