"""What a metered quantity costs: price = ceil(quantity x rate), exact whatever the size."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from services.credits.errors import AmountOutOfRangeError, MeterUnknownError
from services.credits.records import MAX_AMOUNT, CacheResult, Metered


class Rates(NamedTuple):
    """The prices of one meter, in the currency's smallest unit per unit of the meter."""

    currency: str
    hit: Fraction
    miss: Fraction


class Tariff:
    """The rates of every meter that may be debited."""

    __slots__ = ("_rates",)

    def __init__(self, rates: Mapping[str, Rates]) -> None:
        self._rates = dict(rates)

    def currency(self, meter: str) -> str | None:
        """The currency of a meter's price; None when there is no price."""
        rates = self._rates.get(meter)
        return None if rates is None else rates.currency

    def price(self, metered: Metered) -> tuple[str, int]:
        """The currency and the price, rounded up to a whole unit.

        Raises ``MeterUnknownError`` and ``AmountOutOfRangeError``.
        """
        rates = self._rates.get(metered.meter)
        if rates is None:
            raise MeterUnknownError.of(metered.meter)
        rate = rates.hit if metered.cache == CacheResult.HIT else rates.miss
        amount = -(-metered.quantity * rate.numerator // rate.denominator)
        if amount > MAX_AMOUNT:
            raise AmountOutOfRangeError(f"{metered.quantity} of {metered.meter} costs {amount}")
        return rates.currency, amount
