"""Which responses are stored, and which of their fields (RFC 9111, section 3)."""

from __future__ import annotations

from collections.abc import Mapping

from services.edge.origins.fields import Fields, end_to_end, value_of, without
from services.edge.origins.freshness import Lifetime, Rules

# Statuses whose caching this cache understands: those of RFC 9110 that may have a content to keep.
_UNDERSTOOD = frozenset(
    {200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409, 410}
    | {411, 412, 413, 414, 415, 417, 421, 422, 426, 500, 501, 502, 503, 504, 505}
)
# What is said of a part that was asked for, and news about what is stored.
_NEVER = frozenset({206, 304, 416})
_WITH_AUTHORIZATION = ("must-revalidate", "public", "s-maxage")


def may_store(
    status: int,
    fields: Fields,
    rules: Rules,
    fresh: Lifetime,
    *,
    asked: Mapping[str, str | None],
    authorized: bool,
) -> bool:
    """Whether the answer to a GET is stored (section 3).

    Args:
        status: of the answer.
        fields: of the answer.
        rules: of the answer.
        fresh: how long it is fresh.
        asked: directives of the request.
        authorized: whether the request had credentials of the origin's.
    """
    if status in _NEVER or "no-store" in asked or rules.wholly("private"):
        return False
    if "must-understand" in rules and status not in _UNDERSTOOD:
        return False
    if "no-store" in rules and "must-understand" not in rules:
        return False
    if authorized and not any(name in rules for name in _WITH_AUTHORIZATION):
        return False
    # Without one of them it could never be used.
    validators = (b"etag", b"last-modified")
    return fresh.seconds > 0 or any(value_of(fields, name) for name in validators)


def storable_fields(fields: Fields, rules: Rules) -> Fields:
    """The fields that are stored (section 3.1): not the connection's, nor what is private."""
    return without(end_to_end(fields), rules.fields("private"))
