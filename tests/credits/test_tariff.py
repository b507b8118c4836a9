from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.credits.errors import AmountOutOfRangeError, MeterUnknownError
from services.credits.records import MAX_AMOUNT, CacheResult, Metered
from services.credits.tariff import Rates, Tariff

RATES = st.fractions(min_value=0, max_value=1000, max_denominator=10**12)


@given(st.integers(0, MAX_AMOUNT), RATES, RATES, st.sampled_from(CacheResult))
def test_a_price_is_quantity_times_rate_rounded_up_exactly(
    quantity: int, hit: Fraction, miss: Fraction, cache: CacheResult
) -> None:
    tariff = Tariff({"m": Rates("credit", hit, miss)})
    exact = quantity * (hit if cache is CacheResult.HIT else miss)
    if math.ceil(exact) > MAX_AMOUNT:
        with pytest.raises(AmountOutOfRangeError):
            tariff.price(Metered("m", quantity, cache))
    else:
        currency, price = tariff.price(Metered("m", quantity, cache))
        assert currency == "credit"
        assert 0 <= price - exact < 1


def test_only_what_the_tariff_names_has_a_price() -> None:
    tariff = Tariff({"m": Rates("stamp", Fraction(1), Fraction(1))})
    assert tariff.currency("m") == "stamp"
    assert tariff.currency("n") is None
    with pytest.raises(MeterUnknownError):
        tariff.price(Metered("n", 1, CacheResult.NONE))
