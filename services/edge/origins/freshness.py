"""How long a response is fresh, how old it is, and whether it may be reused (RFC 9111, section 4).

Also RFC 5861 (stale-while-revalidate, stale-if-error), RFC 8246 (immutable needs nothing of a cache
that does not reload by itself) and RFC 9213 (targeted fields).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from services.edge.origins.fields import (
    Fields,
    directives,
    http_date,
    seconds,
    split_list,
    unquoted,
    value_of,
)
from services.edge.origins.structured import MalformedError, dictionary

# In the order in which they are looked for (RFC 9213, section 2.2).
_TARGETED = (b"tollmesh-cache-control", b"cdn-cache-control")
_COUNTS = frozenset({"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"})
# RFC 9110, section 15.1, without 206, which is not stored.
_HEURISTIC = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
_NEGATIVE = frozenset({404, 410})
_HEURISTIC_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a response says nothing."""

    heuristic_s: float = 86_400.0
    """At most so long is a response fresh by its Last-Modified."""
    negative_s: float = 0.0
    """So long is a 404 or 410 fresh."""
    stale_if_error_s: float = 0.0
    """So long may a stale response stand in for an origin that does not answer."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a response's Cache-Control, or the field that is meant for us instead, says."""

    directives: Mapping[str, str | None]
    targeted: bool = False
    """Whether it was a field for such caches, so that Expires does not count."""

    def __contains__(self, name: str) -> bool:
        return name in self.directives

    def seconds(self, name: str) -> int | None:
        """A directive's count; 0 when it is none, None when it is not there."""
        if name not in self.directives:
            return None
        return seconds(self.directives[name]) or 0

    def wholly(self, name: str) -> bool:
        """Whether no-cache or private is there without naming fields."""
        return name in self.directives and not self.fields(name)

    def fields(self, name: str) -> frozenset[bytes]:
        """The fields that no-cache or private names."""
        names = split_list(self.directives.get(name))
        return frozenset(unquoted(each).lower().encode("latin-1") for each in names)

    @property
    def never_stale(self) -> bool:
        """Whether the response must not be used stale, whatever happened."""
        return any(
            name in self.directives for name in ("must-revalidate", "proxy-revalidate")
        ) or self.wholly("no-cache")


def rules_of(fields: Fields) -> Rules:
    """The rules of a response."""
    for name in _TARGETED:
        rules = _targeted(value_of(fields, name))
        if rules is not None:
            return rules
    return Rules(directives(value_of(fields, b"cache-control")))


def _targeted(text: str | None) -> Rules | None:
    """The rules of a targeted field; None when it is to be ignored."""
    if not text:
        return None
    try:
        members = dictionary(text)
    except MalformedError:
        return None
    if any(name in members and type(members[name]) is not int for name in _COUNTS) or not members:
        return None
    found: dict[str, str | None] = {}
    for name, value in members.items():
        if value is not False:
            found[name] = None if value is True or value is None else str(value)
    return Rules(found, targeted=True)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a response is fresh after it was made."""

    seconds: float
    explicit: bool
    """Whether the origin said so."""


def lifetime(
    status: int, fields: Fields, rules: Rules, received_at: float, defaults: Defaults
) -> Lifetime:
    """The freshness lifetime (section 4.2.1)."""
    for name in ("s-maxage", "max-age"):
        count = rules.seconds(name)
        if count is not None:
            return Lifetime(count, explicit=True)
    made_at = http_date(value_of(fields, b"date")) or received_at
    expires = value_of(fields, b"expires")
    if expires is not None and not rules.targeted:
        # What is no date, 0 above all, is in the past.
        return Lifetime(max(0.0, (http_date(expires) or made_at) - made_at), explicit=True)
    if status not in _HEURISTIC and "public" not in rules:
        return Lifetime(0, explicit=False)
    modified_at = http_date(value_of(fields, b"last-modified"))
    if modified_at is not None:
        share = max(0.0, made_at - modified_at) * _HEURISTIC_SHARE
        return Lifetime(min(share, defaults.heuristic_s), explicit=False)
    return Lifetime(defaults.negative_s if status in _NEGATIVE else 0, explicit=False)


def initial_age(fields: Fields, requested_at: float, received_at: float) -> float:
    """How old a response was when it arrived: corrected_initial_age of section 4.2.3."""
    made_at = http_date(value_of(fields, b"date"))
    apparent = 0.0 if made_at is None else max(0.0, received_at - made_at)
    said = split_list(value_of(fields, b"age"))
    age = (seconds(said[0]) or 0) if said else 0
    return max(apparent, age + received_at - requested_at)


class Reuse(Enum):
    """What may be done with a stored response."""

    AS_IS = "fresh"
    WHILE_REVALIDATING = "stale-while-revalidate"
    AFTER_VALIDATION = "validate"


@dataclass(frozen=True, slots=True)
class Clock:
    """A stored response's age and what is left of its freshness, in s, at one moment."""

    age: float
    fresh_for: float
    """Negative when it is stale."""


def reuse(rules: Rules, clock: Clock, asked: Mapping[str, str | None]) -> Reuse:
    """What may be done with a response for a request with these directives (section 4.2.4)."""
    too_old = "max-age" in asked and clock.age > (seconds(asked["max-age"]) or 0)
    if rules.wholly("no-cache") or "no-cache" in asked or too_old:
        return Reuse.AFTER_VALIDATION
    if clock.fresh_for > (seconds(asked.get("min-fresh")) or 0):
        return Reuse.AS_IS
    if clock.fresh_for > 0 or rules.never_stale:
        return Reuse.AFTER_VALIDATION
    staleness = -clock.fresh_for
    if _accepts_stale(rules, staleness, asked):
        return Reuse.AS_IS
    if staleness < (rules.seconds("stale-while-revalidate") or 0):
        return Reuse.WHILE_REVALIDATING
    return Reuse.AFTER_VALIDATION


def _accepts_stale(rules: Rules, staleness: float, asked: Mapping[str, str | None]) -> bool:
    if "max-stale" not in asked or "s-maxage" in rules:
        return False
    limit = asked["max-stale"]
    return limit is None or staleness <= (seconds(limit) or 0)


def on_error(
    rules: Rules, clock: Clock, asked: Mapping[str, str | None], *, default_s: float
) -> bool:
    """Whether a stale response may stand in for an answer that failed.

    Args:
        rules: of the response.
        clock: of the response.
        asked: directives of the request.
        default_s: for how long, when neither the response nor the request says.
    """
    if rules.never_stale:
        return False
    limit = rules.seconds("stale-if-error")
    if limit is None and "s-maxage" not in rules:
        limit = seconds(asked.get("stale-if-error"))
        limit = limit if limit is not None else round(default_s)
    return -clock.fresh_for < (limit or 0)
