"""Lists in pages. A token is where the next page begins; what is removed meanwhile moves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from services.rpc.errors import InvalidArgumentError, PageTokenInvalidError

T = TypeVar("T")

LONGEST = 1000
_USUAL = 100


def page(everything: Sequence[T], size: int, token: str) -> tuple[Sequence[T], str]:
    """A part of a list, and the token of the next one (empty after the last).

    Args:
        everything: the list.
        size: how many at most; 0 is 100.
        token: from an earlier page; empty for the first.

    Raises PageTokenInvalidError.
    """
    if token and not (token.isascii() and token.isdecimal() and len(token) < 16):
        raise PageTokenInvalidError
    first = int(token or 0)
    end = first + (size or _USUAL)
    return everything[first:end], str(end) if end < len(everything) else ""


def page_of(query: Mapping[str, str], everything: Sequence[T]) -> tuple[Sequence[T], str]:
    """The page that a query asks for by ``page_size`` and ``page_token``.

    Raises InvalidArgumentError, PageTokenInvalidError.
    """
    size = query.get("page_size", "0")
    if not (size.isascii() and size.isdecimal() and len(size) < 5 and int(size) <= LONGEST):
        raise InvalidArgumentError(f"page_size is a number of at most {LONGEST}.")
    return page(everything, int(size), query.get("page_token", ""))
