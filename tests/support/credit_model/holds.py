"""Credit that is set aside, to the model."""

from __future__ import annotations

from collections.abc import Sequence

from tollmesh.credits.v1 import credits_pb2 as pb

from tests.support.credit_model.books import (
    OVERDRAFT,
    Books,
    Hold,
    Lot,
    Metered,
    Refused,
    microseconds,
    total,
)
from tests.support.credit_model.messages import balance_message, hold_message
from tests.support.credit_model.outlays import count, enter, payable, room_today
from tests.support.credit_model.prices import (
    MAX,
    Price,
    Tariff,
    cost,
    free_left,
    priced,
    use_up,
)
from tests.support.credit_model.returns import give_back

OPEN_HOLDS = 10_000
"""What an account may have at most."""


def reserve(
    books: Books, tariff: Tariff, request: pb.ReserveRequest, now_us: int
) -> pb.ReserveResponse:
    """Sets the price aside, all or nothing; in shadow mode as much of it as there is."""
    price = priced(books, tariff, request, request.currency, now_us)
    amount = payable(books, price, price.amount, limit=True, shortfall=price.shadow)
    hold = Hold(
        books.sequence + 1,
        price.currency,
        amount,
        now_us + live_us(request),
        request.expiry_policy or pb.EXPIRY_POLICY_RELEASE,
        request.excess_rule or pb.EXCESS_RULE_BALANCE,
        request.resource,
        price.metered,
        books.hold(price.currency, amount),
        free=price.free,
        allowance=price.allowance,
    )
    begin(books, hold, request.request_id, now_us)
    balance = balance_message(books, price.currency)
    return pb.ReserveResponse(hold=hold_message(books, hold), balance=balance)


def begin(books: Books, hold: Hold, request_id: str, now_us: int) -> None:
    """Writes a hold, whose credit is held already, and its entry."""
    if len(books.open_holds) >= OPEN_HOLDS:
        raise Refused("ACCOUNT_FULL", limit=OPEN_HOLDS)
    books.enter(
        pb.ENTRY_KIND_RESERVE,
        hold.currency,
        hold.amount,
        now_us,
        hold=hold.number,
        request_id=request_id,
        resource=hold.resource,
        metered=hold.estimate.message() if hold.estimate else None,
    )
    books.holds[hold.number] = hold
    books.open_holds |= {hold.number}


def extend(
    books: Books, tariff: Tariff, request: pb.ExtendHoldRequest, now_us: int
) -> pb.ExtendHoldResponse:
    """Prolongs an open hold, and adds to it if there is a price, all or nothing."""
    hold = _open_hold(books, request.hold_id)
    price = Price(hold.currency, 0)
    if request.WhichOneof("price"):
        price = priced(books, tariff, request, hold.currency, now_us)
        hold, price = _with_more(books, tariff, hold, price)
    amount = payable(books, price, price.amount, limit=True, shortfall=price.shadow)
    hold = add(books, hold, amount)
    hold = hold._replace(expire_us=max(hold.expire_us, now_us + live_us(request)))
    books.holds[hold.number] = hold
    enter_extension(books, hold, amount, request.request_id, now_us, price.metered)
    balance = balance_message(books, hold.currency)
    return pb.ExtendHoldResponse(hold=hold_message(books, hold), balance=balance)


def release(books: Books, request: pb.ReleaseRequest, now_us: int) -> pb.ReleaseResponse:
    """Gives a hold back."""
    hold = _open_hold(books, request.hold_id)
    return_rest(books, hold, request.request_id, now_us, now_us)
    closed = close(books, hold, pb.HOLD_STATE_RELEASED)
    balance = balance_message(books, hold.currency)
    return pb.ReleaseResponse(
        amount=hold.remaining, hold=hold_message(books, closed), balance=balance
    )


def expire(books: Books, hold: Hold, now_us: int) -> None:
    """Does what the hold's policy says, as of its expiry."""
    if hold.policy == pb.EXPIRY_POLICY_DEBIT_ESTIMATE:
        hold = _debit_estimate(books, hold, now_us)
    else:
        return_rest(books, hold, "", now_us, hold.expire_us)
    close(books, hold, pb.HOLD_STATE_EXPIRED)


def return_rest(books: Books, hold: Hold, request_id: str, now_us: int, until_us: int) -> None:
    """Gives what is left of a hold back to its grants."""
    if hold.remaining:
        books.move(hold.currency, held=-hold.remaining)

    def enter_release(passing: int) -> int:
        return books.enter(
            pb.ENTRY_KIND_RELEASE,
            hold.currency,
            hold.remaining,
            now_us,
            passing=passing,
            hold=hold.number,
            request_id=request_id,
            resource=hold.resource,
        )

    give_back(books, hold.currency, hold.lots, now_us, until_us, enter_release)


def close(books: Books, hold: Hold, state: pb.HoldState.ValueType) -> Hold:
    """Ends a hold."""
    closed = hold._replace(state=state, lots=())
    books.holds[hold.number] = closed
    books.open_holds -= {hold.number}
    return closed


def add(books: Books, hold: Hold, amount: int) -> Hold:
    """A hold with more credit out of the balance, in spend order; what no grant gave is last."""
    more = books.hold(hold.currency, amount)
    return hold._replace(amount=hold.amount + amount, lots=_merged((*hold.lots, *more)))


def enter_extension(
    books: Books,
    hold: Hold,
    amount: int,
    request_id: str,
    now_us: int,
    metered: Metered | None = None,
) -> None:
    """Writes the entry about what was added to a hold."""
    books.enter(
        pb.ENTRY_KIND_EXTEND_HOLD,
        hold.currency,
        amount,
        now_us,
        hold=hold.number,
        request_id=request_id,
        resource=hold.resource,
        metered=metered.message() if metered else None,
    )


def require_state(hold: Hold, *states: pb.HoldState.ValueType) -> None:
    """Refuses what is about a hold in another state."""
    if hold.state not in states:
        state = pb.HoldState.Name(pb.HoldState.ValueType(hold.state))
        raise Refused("HOLD_NOT_OPEN", state=state.removeprefix("HOLD_STATE_"))


def live_us(request: pb.ReserveRequest | pb.ExtendHoldRequest) -> int:
    """For how long; less than a microsecond is one."""
    return max(1, microseconds(request.time_to_live))


def _open_hold(books: Books, name: str) -> Hold:
    hold = books.hold_of(name)
    if hold is None:
        raise Refused("HOLD_NOT_FOUND")
    if hold.owner:
        raise Refused("LEASE_NOT_OWNED")
    require_state(hold, pb.HOLD_STATE_OPEN)
    return hold


def _merged(lots: Sequence[Lot]) -> tuple[Lot, ...]:
    places = sorted({lot[:3] for lot in lots}, key=lambda place: (place[2] == OVERDRAFT, place))
    return tuple(Lot(*place, total([lot for lot in lots if lot[:3] == place])) for place in places)


def _with_more(books: Books, tariff: Tariff, hold: Hold, price: Price) -> tuple[Hold, Price]:
    """A hold whose estimate has more, if it is of that meter; what is free goes to the first."""
    estimate, more = hold.estimate, price.metered
    if estimate is None or more is None or more.meter != estimate.meter:
        return hold, price
    quantity = min(MAX, estimate.quantity + more.quantity)
    if price.allowance is not None:
        meter = tariff[more.meter]
        whole = min(quantity, free_left(books, meter, price.allowance))
        free = min(more.quantity, max(0, whole - hold.free))
        price = price._replace(free=free, amount=cost(meter, more, free))
    estimate = estimate._replace(quantity=quantity)
    free, where = hold.free + price.free, price.allowance
    return hold._replace(estimate=estimate, free=free, allowance=where), price


def _debit_estimate(books: Books, hold: Hold, now_us: int) -> Hold:
    """Debits what is left of a hold, and meters what is left of its estimate."""
    metered, free, amount = hold.estimate, 0, hold.remaining
    if hold.captured and not amount:
        metered = None  # captures took all of it
    if metered is not None:
        # Time cannot be refused: what a day's counter has no room for is not counted.
        room = room_today(books, metered, hold.currency, now_us)
        metered = metered._replace(quantity=min(metered.quantity, room))
        free = min(hold.free, metered.quantity)
        use_up(books, hold.allowance, free)
    price = Price(hold.currency, amount, metered, free)
    books.spend_held(hold.currency, amount)
    count(books, price, amount, 0, now_us)
    number = enter(
        books,
        pb.ENTRY_KIND_CAPTURE,
        price,
        hold.lots,
        now_us,
        hold=hold.number,
        resource=hold.resource,
    )
    return hold._replace(
        captured=hold.captured + amount,
        debit=number,
        debited=amount,
        debited_estimate=metered,
        free=free,
    )
