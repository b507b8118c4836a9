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


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 5)), min_size=1),
    RATES,
    st.integers(0, 1000),
    st.integers(0, 10**7),
)
def test_deliveries_summed_up_in_any_way_cost_at_most_what_each_costs_by_itself(
    deliveries: list[tuple[int, int]], rate: Fraction, minimum: int, free: int
) -> None:
    rates = Rates("credit", rate, rate, free, FreePeriod.DAY, minimum)

    def price(quantities: list[int], free: int = 0) -> int:
        quantity = sum(quantities)
        metered = Metered("m", quantity, CacheResult.MISS)
        return cost(rates, metered, min(free, quantity), len(quantities))

    one_by_one = sum(price([quantity]) for quantity, _ in deliveries)
    lines = [[q for q, line in deliveries if line == number] for number in range(6)]
    together = sum(price(line) for line in lines if line)
    assert together <= one_by_one
    assert together >= sum(max(minimum * len(line), math.ceil(sum(line) * rate)) for line in lines)
    for line in lines:
        if line:
            assert price(line, free) <= price(line)
            assert (price(line, free) == 0) == (free >= sum(line) or price(line) == 0)
            free = max(0, free - sum(line))


def test_an_allowance_lasts_a_utc_day_or_a_calendar_month() -> None:
    def first(period: FreePeriod, date: datetime) -> datetime:
        first_day = period.first_day(round(date.timestamp() * 1_000_000))
        return datetime.fromtimestamp(first_day * 86_400, UTC)

    late = datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC)
    assert first(FreePeriod.DAY, late) == datetime(2028, 2, 29, tzinfo=UTC)
    assert first(FreePeriod.MONTH, late) == datetime(2028, 2, 1, tzinfo=UTC)
    march = datetime(2028, 3, 1, tzinfo=UTC)
    assert first(FreePeriod.MONTH, march) == march
