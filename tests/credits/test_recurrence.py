from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from services.credits.records import NEVER_US, RefillPeriod
from services.credits.recurrence import boundary_us
from tests.support.seeds import chosen_seed

DAY, WEEK, MONTH, YEAR = RefillPeriod


def _us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def _days(anchor: str, period: RefillPeriod, counts: range) -> list[str]:
    found = []
    for count in counts:
        moment = datetime.fromtimestamp(boundary_us(_us(anchor), period, count) / 1e6, UTC)
        assert f"{moment:%H:%M:%S}" == anchor[11:]
        found.append(f"{moment:%Y-%m-%d}")
    return found


def test_a_month_that_is_too_short_has_its_last_day_and_the_next_one_the_anchors_again() -> None:
    days = _days("2027-01-31T10:20:30", MONTH, range(6))
    assert days == [
        "2027-01-31",
        "2027-02-28",
        "2027-03-31",
        "2027-04-30",
        "2027-05-31",
        "2027-06-30",
    ]
    assert _days("2027-12-30T00:00:00", MONTH, range(2, 4)) == ["2028-02-29", "2028-03-30"]


def test_the_29th_of_february_is_the_28th_in_other_years() -> None:
    days = _days("2028-02-29T23:59:59", YEAR, range(5))
    assert days == ["2028-02-29", "2029-02-28", "2030-02-28", "2031-02-28", "2032-02-29"]


def test_days_and_weeks_keep_the_time_of_day_across_years() -> None:
    assert _days("2027-12-31T08:00:00", DAY, range(3)) == ["2027-12-31", "2028-01-01", "2028-01-02"]
    assert _days("2027-12-25T08:00:00", WEEK, range(3)) == [
        "2027-12-25",
        "2028-01-01",
        "2028-01-08",
    ]


def test_microseconds_are_kept() -> None:
    anchor_us = _us("2027-01-31T10:20:30") + 123_457
    for period in RefillPeriod:
        assert boundary_us(anchor_us, period, 0) == anchor_us
        assert boundary_us(anchor_us, period, 1000) % 1_000_000 == 123_457


@pytest.mark.parametrize("period", RefillPeriod)
def test_boundaries_grow_and_end_with_the_calendar(period: RefillPeriod) -> None:
    seed = chosen_seed()
    dice = random.Random(seed)
    for _ in range(200):
        anchor_us = dice.randrange(_us("1970-01-01T00:00:00"), _us("2200-01-01T00:00:00"))
        count = dice.randrange(1000)
        first, second = (boundary_us(anchor_us, period, count + more) for more in (0, 1))
        shortest = {DAY: 1, WEEK: 7, MONTH: 28, YEAR: 365}[period]
        assert second - first >= shortest * timedelta(days=1) // timedelta(microseconds=1)
    assert boundary_us(_us("2027-01-31T00:00:00"), period, 10_000_000) == NEVER_US
    assert boundary_us(_us("9999-12-31T00:00:00"), period, 1) == NEVER_US
