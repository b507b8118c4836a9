"""The credit contract as a small state machine: an operation and a time in, the answer out.

Covers grants without recurrence, debits, holds and the terms of accounts; not late captures of what
a hold's expiry debited, nor a free allowance that such an expiry uses up. Written from the contract
alone; it imports nothing of the service. ``version`` is left empty in its answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2

from tests.support.credit_model.books import (
    DAY_US,
    NEVER,
    Books,
    Hold,
    Lot,
    Metered,
    Refused,
    Usage,
    entry_name,
    microseconds,
    split,
    timestamp,
    total,
)
from tests.support.credit_model.prices import MAX, Price, Tariff, priced

Message = Any
"""A request or answer of the contract, whichever."""


class Model:
    """Every account, and every request id."""

    def __init__(self, tariff: Tariff) -> None:
        self.tariff = tariff
        self.accounts: dict[str, Books] = {}
        self.answers: dict[str, tuple[str, bytes, Any]] = {}

    def apply(self, method: str, request: Message, now_us: int) -> Message:
        """The answer of a mutation; raises ``Refused``, and then nothing has happened."""
        content = request.SerializeToString(deterministic=True)
        earlier = self.answers.get(request.request_id)
        if earlier is not None:
            if earlier[:2] != (method, content):
                raise Refused("REQUEST_ID_REUSED")
            again = type(earlier[2])()
            again.CopyFrom(earlier[2])
            again.replayed = True
            return again
        books = self.books(request.account_id)
        draft = books.draft()
        settle(draft, now_us)
        operation: Callable[[Books, Any, int], Any] = getattr(self, f"_{method}")
        answer = operation(draft, request, now_us)
        books.keep(draft)
        self.answers[request.request_id] = method, content, answer
        return answer

    def books(self, account_id: str) -> Books:
        """An account; a new one has nothing."""
        return self.accounts.setdefault(account_id, Books(account_id))

    def balance(self, account_id: str, currency: str, now_us: int) -> pb.Balance:
        """The balance, with all that is due by now applied."""
        draft = self.books(account_id).draft()
        settle(draft, now_us)
        return _balance(draft, currency)

    def entries(self, account_id: str, now_us: int) -> list[pb.Entry]:
        """The ledger, with all that is due by now applied for good: a read settles."""
        books = self.books(account_id)
        settle(books, now_us)
        return books.written

    def usage(self, account_id: str) -> list[pb.MeterUsage]:
        """All of the usage in one sum; ``entries`` settles, so ask for those first."""
        lines: dict[tuple[str, int, str], pb.MeterUsage] = {}
        for (_, meter, cache, currency), day in self.books(account_id).usage.items():
            cache_result = pb.CacheResult.ValueType(cache)
            new = pb.MeterUsage(meter=meter, cache_result=cache_result, currency=currency)
            line = lines.setdefault((meter, cache, currency), new)
            line.quantity += day.quantity
            line.amount += day.amount
            line.count += day.debits
            line.shortfall += day.shortfall
            line.free_quantity += day.free_quantity
        return [line for _, line in sorted(lines.items())]

    def _Grant(self, books: Books, request: pb.GrantRequest, now_us: int) -> pb.GrantResponse:  # noqa: N802 (the contract's name)
        expires = request.HasField("expire_time")
        expire_us = microseconds(request.expire_time) if expires else NEVER
        if expire_us <= now_us:
            raise Refused("INVALID_ARGUMENT")
        currency = request.currency or "credit"
        if books.purse(currency).granted + request.amount > MAX:
            raise Refused("AMOUNT_OUT_OF_RANGE")
        number = books.sequence + 1
        books.receive(currency, Lot(expire_us, request.priority, number, request.amount))
        ids = {"request_id": request.request_id, "resource": request.resource}
        books.enter(pb.ENTRY_KIND_GRANT, currency, request.amount, now_us, grant=number, **ids)
        name = books.grant_name(number)
        return pb.GrantResponse(grant_id=name, balance=_balance(books, currency))

    def _Debit(self, books: Books, request: pb.DebitRequest, now_us: int) -> pb.DebitResponse:  # noqa: N802 (the contract's name)
        price = priced(books, self.tariff, request, request.currency, now_us)
        amount = _payable(books, price, price.amount, limit=True, shortfall=price.shadow)
        taken = books.spend(price.currency, amount)
        short = price.amount - amount
        _count(books, price, amount, short, now_us)
        number = _enter_outlay(books, pb.ENTRY_KIND_DEBIT, price, amount, taken, now_us, request)
        balance = _balance(books, price.currency)
        return pb.DebitResponse(
            entry_id=entry_name(number), amount=amount, balance=balance, shortfall=short
        )

    def _Reserve(self, books: Books, request: pb.ReserveRequest, now_us: int) -> pb.ReserveResponse:  # noqa: N802 (the contract's name)
        price = priced(books, self.tariff, request, request.currency, now_us)
        amount = _payable(books, price, price.amount, limit=True, shortfall=price.shadow)
        taken = books.hold(price.currency, amount)
        number = books.sequence + 1
        books.enter(
            pb.ENTRY_KIND_RESERVE,
            price.currency,
            amount,
            now_us,
            hold=number,
            request_id=request.request_id,
            resource=request.resource,
            metered=price.metered.message() if price.metered else None,
        )
        hold = Hold(
            number,
            price.currency,
            amount,
            now_us + max(1, microseconds(request.time_to_live)),
            request.expiry_policy or pb.EXPIRY_POLICY_RELEASE,
            request.excess_rule or pb.EXCESS_RULE_BALANCE,
            request.resource,
            price.metered,
            taken,
        )
        books.holds[number] = hold
        books.open_holds |= {number}
        balance = _balance(books, price.currency)
        return pb.ReserveResponse(hold=_hold_message(books, hold), balance=balance)

    def _Capture(self, books: Books, request: pb.CaptureRequest, now_us: int) -> pb.CaptureResponse:  # noqa: N802 (the contract's name)
        hold = _open_hold(books, request.hold_id, late=True)
        price = priced(books, self.tariff, request, hold.currency, now_us)
        within = min(price.amount, hold.remaining)
        rule = hold.excess_rule
        above = _payable(
            books,
            price,
            price.amount - within,
            limit=rule == pb.EXCESS_RULE_OVERDRAFT,
            shortfall=price.shadow or rule == pb.EXCESS_RULE_SHORTFALL,
        )
        first, rest = split(hold.lots, within)
        books.spend_held(hold.currency, within)
        taken = (*first, *books.spend(hold.currency, above))
        amount, short = within + above, price.amount - within - above
        _count(books, price, amount, short, now_us)
        kind = pb.ENTRY_KIND_CAPTURE
        number = _enter_outlay(
            books, kind, price, amount, taken, now_us, request, hold=hold.number, short=short
        )
        hold = hold._replace(
            lots=rest,
            captured=hold.captured + amount,
            shortfall=hold.shortfall + short,
            estimate=_rest_of(hold.estimate, price.metered),
        )
        books.holds[hold.number] = hold
        if request.final:
            if rest:
                _return_rest(books, hold, now_us, request.request_id)
            hold = _close(books, hold, pb.HOLD_STATE_CAPTURED)
        return pb.CaptureResponse(
            entry_id=entry_name(number),
            amount=amount,
            hold=_hold_message(books, hold),
            balance=_balance(books, hold.currency),
            shortfall=short,
        )

    def _Release(self, books: Books, request: pb.ReleaseRequest, now_us: int) -> pb.ReleaseResponse:  # noqa: N802 (the contract's name)
        hold = _open_hold(books, request.hold_id)
        _return_rest(books, hold, now_us, request.request_id)
        closed = _close(books, hold, pb.HOLD_STATE_RELEASED)
        balance, amount = _balance(books, hold.currency), hold.remaining
        return pb.ReleaseResponse(amount=amount, hold=_hold_message(books, closed), balance=balance)

    def _SetAccountTerms(  # noqa: N802 (the contract's name)
        self, books: Books, request: ledger_pb2.SetAccountTermsRequest, now_us: int
    ) -> ledger_pb2.SetAccountTermsResponse:
        currency = request.currency or "credit"
        if request.HasField("overdraft_limit"):
            purse = books.purse(currency)
            books.purses[currency] = purse._replace(overdraft_limit=request.overdraft_limit)
        if request.HasField("shadow"):
            books.shadow = request.shadow
        told = [
            f"{name}={str(getattr(request, name)).lower()}"
            for name in ("overdraft_limit", "shadow")
            if request.HasField(name)
        ]
        ids = {"request_id": request.request_id, "resource": " ".join(told)}
        books.enter(pb.ENTRY_KIND_SET_TERMS, currency, 0, now_us, **ids)
        limit = books.purse(currency).overdraft_limit
        terms = ledger_pb2.AccountTerms(
            account_id=books.account_id,
            currency=currency,
            overdraft_limit=limit,
            shadow=books.shadow,
        )
        return ledger_pb2.SetAccountTermsResponse(terms=terms)


def settle(books: Books, now_us: int) -> None:
    """What time does: holds by their expiry, then credit whose time is over."""
    due = sorted((books.holds[n].expire_us, n) for n in books.open_holds)
    for expire_us, number in due:
        if expire_us <= now_us:
            _expire_hold(books, books.holds[number], now_us)
    for currency in list(books.purses):
        _expire_lots(books, currency, now_us)


def _expire_lots(books: Books, currency: str, now_us: int) -> None:
    for lot in books.purse(currency).lots:
        if lot.expire_us <= now_us:
            books.expire(currency, lot)
            kind = pb.ENTRY_KIND_EXPIRE_GRANT
            books.enter(kind, currency, lot.remaining, now_us, grant=lot.number)


def _expire_hold(books: Books, hold: Hold, now_us: int) -> None:
    if hold.policy == pb.EXPIRY_POLICY_DEBIT_ESTIMATE:
        metered = None if hold.captured and not hold.lots else hold.estimate
        amount = hold.remaining
        books.spend_held(hold.currency, amount)
        price = Price(hold.currency, amount, metered)
        _count(books, price, amount, 0, now_us)
        _enter_outlay(
            books, pb.ENTRY_KIND_CAPTURE, price, amount, hold.lots, now_us, hold, hold=hold.number
        )
        hold = hold._replace(captured=hold.captured + amount)
    else:
        _return_rest(books, hold, now_us, "")
    _close(books, hold, pb.HOLD_STATE_EXPIRED)


def _return_rest(books: Books, hold: Hold, now_us: int, request_id: str) -> None:
    """Gives a hold's credit back to its grants; that of grants which are over expires at once."""
    currency, amount = hold.currency, hold.remaining
    over = [lot for lot in hold.lots if lot.expire_us <= now_us]
    books.unhold(currency, [lot for lot in hold.lots if lot.expire_us > now_us])
    for lot in over:
        books.unhold_over(currency, lot)
    passing = total(over)
    ids = {"request_id": request_id, "resource": hold.resource, "hold": hold.number}
    books.enter(pb.ENTRY_KIND_RELEASE, currency, amount, now_us, passing=passing, **ids)
    for lot in over:
        passing -= lot.remaining
        kind = pb.ENTRY_KIND_EXPIRE_GRANT
        books.enter(kind, currency, lot.remaining, now_us, grant=lot.number, passing=passing)


def _close(books: Books, hold: Hold, state: pb.HoldState.ValueType) -> Hold:
    closed = hold._replace(state=state, lots=())
    books.holds[hold.number] = closed
    books.open_holds -= {hold.number}
    return closed


def _payable(books: Books, price: Price, amount: int, *, limit: bool, shortfall: bool) -> int:
    """How much of ``amount`` is taken."""
    purse = books.purse(price.currency)
    if shortfall or books.shadow:
        return min(amount, max(0, purse.available))
    most = purse.available + (purse.overdraft_limit if limit else 0)
    if amount and amount > most:
        raise Refused("INSUFFICIENT_CREDIT", currency=price.currency, needed=amount, available=most)
    return amount


def _count(books: Books, price: Price, amount: int, short: int, now_us: int) -> None:
    price.use_up(books)
    if (metered := price.metered) is None:
        return
    key = now_us // DAY_US, metered.meter, metered.cache, price.currency
    day = books.usage.get(key, Usage())
    books.usage[key] = day._replace(
        quantity=day.quantity + metered.quantity,
        amount=day.amount + amount,
        debits=day.debits + 1,
        shortfall=day.shortfall + short,
        free_quantity=day.free_quantity + price.free,
    )


def _enter_outlay(
    books: Books,
    kind: pb.EntryKind.ValueType,
    price: Price,
    amount: int,
    taken: tuple[Lot, ...],
    now_us: int,
    request: Message,
    *,
    hold: int = 0,
    short: int | None = None,
) -> int:
    grants = {lot.number for lot in taken}
    return books.enter(
        kind,
        price.currency,
        amount,
        now_us,
        hold=hold,
        grant=min(grants) if len(grants) == 1 else 0,
        request_id=getattr(request, "request_id", ""),
        resource=books.holds[hold].resource if hold else request.resource,
        metered=price.metered.message() if price.metered else None,
        shortfall=price.amount - amount if short is None else short,
        free_quantity=price.free,
    )


def _open_hold(books: Books, name: str, *, late: bool = False) -> Hold:
    for number, hold in books.holds.items():
        if books.hold_name(number) == name:
            expired = hold.state == pb.HOLD_STATE_EXPIRED
            if hold.state != pb.HOLD_STATE_OPEN and not (late and expired):
                state = pb.HoldState.Name(pb.HoldState.ValueType(hold.state))
                raise Refused("HOLD_NOT_OPEN", state=state.removeprefix("HOLD_STATE_"))
            return hold
    raise Refused("HOLD_NOT_FOUND")


def _rest_of(estimate: Metered | None, metered: Metered | None) -> Metered | None:
    if estimate is None or metered is None or metered.meter != estimate.meter:
        return estimate
    return estimate._replace(quantity=max(0, estimate.quantity - metered.quantity))


def _hold_message(books: Books, hold: Hold) -> pb.Hold:
    return pb.Hold(
        hold_id=books.hold_name(hold.number),
        account_id=books.account_id,
        currency=hold.currency,
        amount=hold.amount,
        captured=hold.captured,
        remaining=hold.remaining,
        state=pb.HoldState.ValueType(hold.state),
        expire_time=timestamp(hold.expire_us),
        expiry_policy=pb.ExpiryPolicy.ValueType(hold.policy),
        excess_rule=pb.ExcessRule.ValueType(hold.excess_rule),
        shortfall=hold.shortfall,
        owner=hold.owner,
        resource=hold.resource,
    )


def _balance(books: Books, currency: str) -> pb.Balance:
    purse = books.purse(currency)
    parts = {name: getattr(purse, name) for name in ("granted", "held", "spent", "expired")}
    return pb.Balance(
        account_id=books.account_id,
        currency=currency,
        available=purse.available,
        voided=purse.voided,
        overdraft_limit=purse.overdraft_limit,
        **parts,
    )
