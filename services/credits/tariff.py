"""What a metered quantity costs: exact whatever the size.

price = max(minimum, ceil((quantity - free) x rate)), or 0 when all of the quantity is free. Of
several deliveries summed up, the minimum counts for each that is not free.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum
from fractions import Fraction
from typing import NamedTuple

from services.credits.errors import AmountOutOfRangeError, MeterUnknownError
from services.credits.records import MAX_AMOUNT, CacheResult, Metered

DAY_S = 86_400


class FreePeriod(IntEnum):
    """For how long a free allowance lasts: a UTC day, or a calendar month in UTC."""

    DAY = 1
    MONTH = 2

    def first_day(self, now_us: int) -> int:
        """The UTC day since the epoch on which the period of a time began."""
        today = now_us // 1_000_000 // DAY_S
        if self is FreePeriod.DAY:
            return today
        return today + 1 - datetime.fromtimestamp(today * DAY_S, UTC).day


class Rates(NamedTuple):
    """The prices of one meter, in the currency's smallest unit per unit of the meter."""

    currency: str
    hit: Fraction
    miss: Fraction
    free: int = 0
    """Units that are free of charge, by account and period."""
    free_period: FreePeriod = FreePeriod.MONTH
    minimum: int = 0
    """What a debit costs at least that is not free altogether."""
    shadow: bool = False
    """Nothing of this meter is refused for want of credit."""


class Tariff:
    """The rates of every meter that may be debited."""

    __slots__ = ("_rates",)

    def __init__(self, rates: Mapping[str, Rates]) -> None:
        self._rates = dict(rates)

    def currency(self, meter: str) -> str | None:
        """The currency of a meter's price; None when there is no price."""
        rates = self._rates.get(meter)
        return None if rates is None else rates.currency

    def meters(self) -> Mapping[str, Rates]:
        """The rates of every meter."""
        return self._rates

    def rates(self, meter: str) -> Rates:
        """The rates of a meter; raises ``MeterUnknownError``."""
        rates = self._rates.get(meter)
        if rates is None:
            raise MeterUnknownError.of(meter)
        return rates


def cost(rates: Rates, metered: Metered, free: int = 0, deliveries: int = 1) -> int:
    """The price of a quantity, of which ``free`` units cost nothing, rounded up to a whole unit.

    It sums up so many ``deliveries``, of which as large a part counts as free as of the quantity;
    together they never cost more than one by one without what is free. Raises
    ``AmountOutOfRangeError``.
    """
    billable = metered.quantity - free
    if billable <= 0:
        return 0
    rate = rates.hit if metered.cache == CacheResult.HIT else rates.miss
    least = rates.minimum
    if least and deliveries > 1:
        least *= -(-deliveries * billable // metered.quantity)
    amount = max(least, -(-billable * rate.numerator // rate.denominator))
    if amount > MAX_AMOUNT:
        raise AmountOutOfRangeError(f"{billable} of {metered.meter} costs {amount}")
    return amount
