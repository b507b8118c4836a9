from __future__ import annotations

import math
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.credits.errors import AmountOutOfRangeError
from services.credits.records import MAX_AMOUNT, CacheResult, Metered
from services.credits.tariff import FreePeriod, Rates, cost

RATES = st.fractions(min_value=0, max_value=1000, max_denominator=10**12)


@given(st.integers(0, MAX_AMOUNT), RATES, RATES, st.sampled_from(CacheResult))
def test_a_price_is_quantity_times_rate_rounded_up_exactly(
    quantity: int, hit: Fraction, miss: Fraction, cache: CacheResult
) -> None:
    rates = Rates("credit", hit, miss)
    exact = quantity * (hit if cache is CacheResult.HIT else miss)
    if math.ceil(exact) > MAX_AMOUNT:
        with pytest.raises(AmountOutOfRangeError):
            cost(rates, Metered("m", quantity, cache))
    else:
        assert 0 <= cost(rates, Metered("m", quantity, cache)) - exact < 1


@given(st.integers(0, 10**6), RATES, st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_is_not_free_costs_at_least_the_minimum(
    quantity: int, rate: Fraction, free: int, minimum: int
) -> None:
    rates = Rates("credit", rate, rate, free, FreePeriod.DAY, minimum)
    price = cost(rates, Metered("m", quantity, CacheResult.MISS), min(free, quantity))
    if quantity <= free:
        assert price == 0
    else:
        assert price == max(minimum, math.ceil((quantity - free) * rate))


def test_an_allowance_lasts_a_utc_day_or_a_calendar_month() -> None:
    def first(period: FreePeriod, date: datetime) -> datetime:
        first_day = period.first_day(round(date.timestamp() * 1_000_000))
        return datetime.fromtimestamp(first_day * 86_400, UTC)

    late = datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC)
    assert first(FreePeriod.DAY, late) == datetime(2028, 2, 29, tzinfo=UTC)
    assert first(FreePeriod.MONTH, late) == datetime(2028, 2, 1, tzinfo=UTC)
    march = datetime(2028, 3, 1, tzinfo=UTC)
    assert first(FreePeriod.MONTH, march) == march
