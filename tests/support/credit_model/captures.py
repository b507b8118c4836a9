"""Credit of a hold that is spent, to the model; in time, or late when the hold has expired."""

from __future__ import annotations

from typing import NamedTuple

from tollmesh.credits.v1 import credits_pb2 as pb

from tests.support.credit_model.books import Books, Hold, Lot, Refused, entry_name, split
from tests.support.credit_model.holds import close, require_state, return_rest
from tests.support.credit_model.messages import balance_message, hold_message
from tests.support.credit_model.outlays import count, enter, payable
from tests.support.credit_model.prices import Price, Priceable, Tariff, cost, priced
from tests.support.credit_model.returns import reverse


class Line(NamedTuple):
    """One entry's worth of what is captured."""

    price: Priceable
    resource: str
    request_id: str
    deliveries: int = 0
    """Of a lease's settlement; 0: of none."""


class Taken(NamedTuple):
    """What became of a line."""

    hold: Hold
    entry: int
    amount: int
    shortfall: int


def capture(
    books: Books, tariff: Tariff, request: pb.CaptureRequest, now_us: int
) -> pb.CaptureResponse:
    """Debits a hold."""
    hold = capturable(books, request.hold_id, "")
    line = Line(request, hold.resource, request.request_id)
    taken = take(books, tariff, hold, line, now_us)
    hold = taken.hold
    if request.final:
        hold = finish(books, hold, request.request_id, now_us)
    return pb.CaptureResponse(
        entry_id=entry_name(taken.entry),
        amount=taken.amount,
        hold=hold_message(books, hold),
        balance=balance_message(books, hold.currency),
        shortfall=taken.shortfall,
    )


def capturable(books: Books, name: str, owner: str) -> Hold:
    """An owner's hold that is open or has expired; no owner: a hold that is no lease."""
    hold = books.hold_of(name)
    if hold is None:
        raise Refused("HOLD_NOT_FOUND")
    if hold.owner != owner:
        raise Refused("LEASE_NOT_OWNED")
    require_state(hold, pb.HOLD_STATE_OPEN, pb.HOLD_STATE_EXPIRED)
    return hold


def take(books: Books, tariff: Tariff, hold: Hold, line: Line, now_us: int) -> Taken:
    """Captures a line: out of the hold, or of what its expiry debited, and then of the balance."""
    late = hold.state == pb.HOLD_STATE_EXPIRED
    deliveries = line.deliveries or 1
    price = priced(books, tariff, line.price, hold.currency, now_us, deliveries)
    if late:
        price = _behind_the_estimate(tariff, hold, price, deliveries)
    within = min(price.amount, _debited(books, hold)[0] if late else hold.remaining)
    rule = hold.excess_rule
    paid = payable(
        books,
        price,
        price.amount - within,
        limit=rule == pb.EXCESS_RULE_OVERDRAFT,
        shortfall=price.shadow or rule == pb.EXCESS_RULE_SHORTFALL,
    )
    amount, short = within + paid, price.amount - within - paid
    first: tuple[Lot, ...] = ()
    if late:
        hold, price = _accounted(books, hold, price, within)
        price = price._replace(amount=paid)
    else:
        first, rest = split(hold.lots, within)
        books.spend_held(hold.currency, within)
        hold = _without(hold, price)._replace(lots=rest)
        price = price._replace(amount=amount)
    count(books, price, price.amount, short, now_us, deliveries)
    taken = (*first, *books.spend(hold.currency, paid))
    ids = {"request_id": line.request_id, "resource": line.resource}
    kind = pb.ENTRY_KIND_CAPTURE
    number = enter(
        books,
        kind,
        price,
        taken,
        now_us,
        hold=hold.number,
        shortfall=short,
        count=line.deliveries,
        **ids,
    )
    hold = hold._replace(captured=hold.captured + price.amount, shortfall=hold.shortfall + short)
    books.holds[hold.number] = hold
    return Taken(hold, number, amount, short)


def finish(books: Books, hold: Hold, request_id: str, now_us: int) -> Hold:
    """Gives back what is left of a hold, or of what its expiry debited, and closes it."""
    if hold.state == pb.HOLD_STATE_OPEN:
        if hold.lots:
            return_rest(books, hold, request_id, now_us, now_us)
        return close(books, hold, pb.HOLD_STATE_CAPTURED)
    amount, quantity = _debited(books, hold)
    if amount or quantity:
        ids = {"request_id": request_id, "resource": hold.resource}
        reverse(books, hold.debit, amount, quantity, now_us, hold=hold.number, **ids)
    hold = hold._replace(captured=hold.captured - amount)
    return close(books, hold, pb.HOLD_STATE_CAPTURED)


def _debited(books: Books, hold: Hold) -> tuple[int, int]:
    """What the expiry debited and metered, without what was captured late or refunded."""
    if not hold.debit:
        return 0, 0
    outlay = books.outlays[hold.debit]
    metered = hold.debited_estimate.quantity if hold.debited_estimate else 0
    return (
        max(0, hold.debited - outlay.refunded),
        max(0, metered - outlay.refunded_quantity),
    )


def _behind_the_estimate(tariff: Tariff, hold: Hold, price: Price, deliveries: int) -> Price:
    """A late price: what was free of the estimate is free of it, and used up already."""
    if price.metered is None or not hold.free or not _is_of_estimate(hold, price):
        return price
    free = min(price.metered.quantity, price.free + hold.free)
    amount = cost(tariff[price.metered.meter], price.metered, free, deliveries)
    return price._replace(amount=amount, free=max(0, free - hold.free))


def _accounted(books: Books, hold: Hold, price: Price, within: int) -> tuple[Hold, Price]:
    """Of the debit, ``within`` was captured; and what of the price is metered besides."""
    amount, quantity = _debited(books, hold)
    covered = quantity * within // amount if amount else 0
    if price.metered is not None and _is_of_estimate(hold, price):
        covered = min(price.metered.quantity, quantity)
        beyond = price.metered.quantity - covered
        metered = price.metered._replace(quantity=beyond)
        price = price._replace(metered=metered, free=min(price.free, beyond))
    hold = hold._replace(debited=hold.debited - within, free=max(0, hold.free - covered))
    if hold.debited_estimate is not None:
        left = hold.debited_estimate.quantity - covered
        estimate = hold.debited_estimate._replace(quantity=left)
        hold = hold._replace(debited_estimate=estimate)
    return hold, price


def _is_of_estimate(hold: Hold, price: Price) -> bool:
    estimate, metered = hold.debited_estimate, price.metered
    return estimate is not None and metered is not None and estimate.meter == metered.meter


def _without(hold: Hold, price: Price) -> Hold:
    """An open hold whose estimate is less by what is captured of it."""
    estimate, metered = hold.estimate, price.metered
    if estimate is None or metered is None or metered.meter != estimate.meter:
        return hold
    quantity = max(0, estimate.quantity - metered.quantity)
    free = max(0, hold.free - price.free)
    return hold._replace(estimate=estimate._replace(quantity=quantity), free=free)
