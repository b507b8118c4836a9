"""What a metered quantity costs, to the model: from the comments of the contract."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from fractions import Fraction
from typing import NamedTuple

from tollmesh.credits.v1 import credits_pb2 as pb

from tests.support.credit_model.books import DAY_US, Books, Metered, Refused

MAX = 2**63 - 1

Priceable = pb.DebitRequest | pb.ReserveRequest | pb.CaptureRequest


class Meter(NamedTuple):
    """The price of one meter."""

    currency: str
    miss: Fraction
    hit: Fraction
    free: int = 0
    free_period: str = "month"
    minimum: int = 0
    shadow: bool = False


class Price(NamedTuple):
    """What something costs."""

    currency: str
    amount: int
    metered: Metered | None = None
    free: int = 0
    shadow: bool = False
    allowance: tuple[str, int] | None = None
    """Where the free quantity is counted."""

    def use_up(self, books: Books) -> None:
        """Counts the free quantity as used."""
        if self.allowance is not None and self.free:
            books.allowance[self.allowance] = books.allowance.get(self.allowance, 0) + self.free


Tariff = dict[str, Meter]


def priced(books: Books, tariff: Tariff, request: Priceable, currency: str, now_us: int) -> Price:
    """The price of a request that has ``amount`` or ``metered``."""
    if request.WhichOneof("price") != "metered":
        return Price(currency or "credit", request.amount)
    metered = Metered(
        request.metered.meter, request.metered.quantity, int(request.metered.cache_result)
    )
    meter = tariff.get(metered.meter)
    if meter is None:
        raise Refused("METER_UNKNOWN", meter=metered.meter)
    if currency not in {"", meter.currency}:
        raise Refused("INVALID_ARGUMENT")
    where, free = None, 0
    if meter.free:
        where = metered.meter, period_start(meter.free_period, now_us)
        free = min(metered.quantity, max(0, meter.free - books.allowance.get(where, 0)))
    rate = meter.hit if metered.cache == pb.CACHE_RESULT_HIT else meter.miss
    billable = metered.quantity - free
    amount = max(meter.minimum, math.ceil(billable * rate)) if billable else 0
    if amount > MAX:
        raise Refused("AMOUNT_OUT_OF_RANGE")
    return Price(meter.currency, amount, metered, free, meter.shadow, where)


def period_start(period: str, now_us: int) -> int:
    """The day (since 1970, UTC) on which the allowance's day or month began."""
    day = now_us // DAY_US
    if period == "day":
        return day
    today = datetime.fromtimestamp(day * 86_400, UTC)
    return day - today.day + 1
