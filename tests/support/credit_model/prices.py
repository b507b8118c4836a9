"""What a metered quantity costs, to the model: from the comments of the contract."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from fractions import Fraction
from typing import NamedTuple

from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import leases_pb2

from tests.support.credit_model.books import DAY_US, Books, Metered, Refused

MAX = 2**63 - 1

Priceable = (
    pb.DebitRequest
    | pb.ReserveRequest
    | pb.CaptureRequest
    | pb.ExtendHoldRequest
    | leases_pb2.LeaseSpending
)


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
    allowance: tuple[str, str, int] | None = None
    """Where the free quantity is counted."""


Tariff = dict[str, Meter]


def priced(
    books: Books,
    tariff: Tariff,
    request: Priceable,
    currency: str,
    now_us: int,
    deliveries: int = 1,
) -> Price:
    """The price of a request that has ``amount`` or ``metered``; uses nothing up."""
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
        where = metered.meter, meter.free_period, period_start(meter.free_period, now_us)
        free = min(metered.quantity, free_left(books, meter, where))
    amount = cost(meter, metered, free, deliveries)
    return Price(meter.currency, amount, metered, free, meter.shadow, where)


def free_left(books: Books, meter: Meter, where: tuple[str, str, int]) -> int:
    """How much of a meter's allowance nothing has used up."""
    return max(0, meter.free - books.allowance.get(where, 0))


def cost(meter: Meter, metered: Metered, free: int, deliveries: int = 1) -> int:
    """What a quantity costs of which ``free`` is free; the minimum is for each delivery."""
    billable = metered.quantity - free
    if not billable:
        return 0
    rate = meter.hit if metered.cache == pb.CACHE_RESULT_HIT else meter.miss
    paid = math.ceil(Fraction(deliveries * billable, metered.quantity))
    amount = max(meter.minimum * paid, math.ceil(billable * rate))
    if amount > MAX:
        raise Refused("AMOUNT_OUT_OF_RANGE")
    return amount


def use_up(books: Books, where: tuple[str, str, int] | None, free: int) -> None:
    """Counts a free quantity as used."""
    if where is not None and free:
        books.allowance[where] = books.allowance.get(where, 0) + free


def period_start(period: str, now_us: int) -> int:
    """The day (since 1970, UTC) on which the allowance's day or month began."""
    day = now_us // DAY_US
    if period == "day":
        return day
    today = datetime.fromtimestamp(day * 86_400, UTC)
    return day - today.day + 1
