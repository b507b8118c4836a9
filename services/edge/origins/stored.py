"""A stored response: its head, what it may be used for, and its body."""

from __future__ import annotations

from dataclasses import dataclass

from services.edge.origins.body import Body
from services.edge.origins.fields import Fields, date_text, http_date, value_of, without
from services.edge.origins.freshness import (
    Clock,
    Defaults,
    Rules,
    initial_age,
    lifetime,
    rules_of,
)
from services.edge.origins.validation import freshened
from services.edge.origins.vary import Selecting

_HEAD_BYTES = 512
"""What a response takes besides its fields and body, about."""


@dataclass(frozen=True, slots=True)
class Times:
    """When a response was asked for and when it came, in s since 1970."""

    requested_at: float
    received_at: float


class Stored:
    """A response that is kept, or is being fetched to be kept."""

    __slots__ = (
        "_age",
        "_defaults",
        "_lifetime",
        "_received_at",
        "body",
        "fields",
        "length",
        "rules",
        "selected",
        "status",
    )

    def __init__(
        self,
        status: int,
        fields: Fields,
        times: Times,
        selected: Selecting,
        body: Body,
        defaults: Defaults,
        length: int | None,
    ) -> None:
        self.length = length
        """Of the body; None until its end, when only that will tell."""
        self.status = status
        self.selected = selected
        self.body = body
        self._defaults = defaults
        self._take(fields, times)

    def _take(self, fields: Fields, times: Times) -> None:
        self.fields = fields
        self.rules: Rules = rules_of(fields)
        self._age = initial_age(fields, times.requested_at, times.received_at)
        self._received_at = times.received_at
        self._lifetime = lifetime(
            self.status, fields, self.rules, times.received_at, self._defaults
        ).seconds

    def freshen(self, news: Fields, times: Times) -> None:
        """Takes over what a 304, or a HEAD, says of it."""
        self._take(freshened(self.fields, dated(news, times.received_at)), times)

    def expire(self) -> None:
        """From now on it is stale: something newer was seen."""
        self._lifetime = 0.0

    def clock(self, now: float) -> Clock:
        """Its age and what is left of its freshness."""
        age = self._age + max(0.0, now - self._received_at)
        return Clock(age, self._lifetime - age)

    @property
    def made_at(self) -> float:
        """By its Date."""
        return http_date(value_of(self.fields, b"date")) or self._received_at

    @property
    def head_bytes(self) -> int:
        """What it takes in memory besides its body, about."""
        lengths = [len(name) + len(value) for name, value in self.fields]
        lengths += [len(name) + len(value or "") for name, value in self.selected]
        return _HEAD_BYTES + sum(length + 128 for length in lengths)

    def shown(self, now: float) -> Fields:
        """The fields with which it is sent without having been validated, Age included."""
        fields = without(self.fields, self.rules.fields("no-cache") | {b"age"})
        fields.append((b"age", b"%d" % min(self.clock(now).age, 2**31)))
        return fields


def dated(fields: Fields, received_at: float) -> Fields:
    """The fields with a Date: that of their arrival, where there is none (RFC 9110, 6.6.1)."""
    if http_date(value_of(fields, b"date")) is not None:
        return fields
    return [*without(fields, {b"date"}), (b"date", date_text(received_at))]
