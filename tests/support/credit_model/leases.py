"""Holds that their owners spend by themselves, to the model."""

from __future__ import annotations

from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import leases_pb2

from tests.support.credit_model.books import Books, Hold, Refused, microseconds
from tests.support.credit_model.captures import Line, capturable, finish, take
from tests.support.credit_model.holds import add, begin, enter_extension
from tests.support.credit_model.messages import balance_message, hold_message
from tests.support.credit_model.outlays import payable
from tests.support.credit_model.prices import MAX, Price, Tariff


def open_lease(
    books: Books, request: leases_pb2.OpenLeaseRequest, now_us: int
) -> leases_pb2.OpenLeaseResponse:
    """Sets aside as much as is wanted or there is, not less than the minimum."""
    least, currency = request.min_amount or request.amount, request.currency or "credit"
    if least > request.amount:
        raise Refused("INVALID_ARGUMENT")
    payable(books, Price(currency, least), least, limit=True, shortfall=False)
    hold = Hold(
        books.sequence + 1,
        currency,
        0,
        now_us + max(1, microseconds(request.time_to_live)),
        request.expiry_policy or pb.EXPIRY_POLICY_RELEASE,
        request.excess_rule or pb.EXCESS_RULE_BALANCE,
        request.owner,
        None,
        (),
        owner=request.owner,
    )
    hold = _filled(books, hold, request.amount)
    begin(books, hold, request.request_id, now_us)
    balance = balance_message(books, currency)
    return leases_pb2.OpenLeaseResponse(hold=hold_message(books, hold), balance=balance)


def settle_lease(
    books: Books, tariff: Tariff, request: leases_pb2.SettleLeaseRequest, now_us: int
) -> leases_pb2.SettleLeaseResponse:
    """Captures every spending, or none; then fills up and prolongs the lease, or closes it."""
    hold = capturable(books, request.hold_id, request.owner)
    amount = short = 0
    for spending in request.spendings:
        line = Line(spending, spending.resource, request.request_id, spending.count or 1)
        taken = take(books, tariff, hold, line, now_us)
        hold = taken.hold
        amount, short = amount + taken.amount, short + taken.shortfall
    if request.final:
        hold = finish(books, hold, request.request_id, now_us)
    elif hold.state == pb.HOLD_STATE_OPEN:
        hold = _renewed(books, hold, request, now_us)
    books.holds[hold.number] = hold
    return leases_pb2.SettleLeaseResponse(
        amount=amount,
        hold=hold_message(books, hold),
        balance=balance_message(books, hold.currency),
        shortfall=short,
    )


def _renewed(books: Books, hold: Hold, request: leases_pb2.SettleLeaseRequest, now_us: int) -> Hold:
    before = hold.amount
    hold = _filled(books, hold, request.target_amount)
    if hold.amount > before:
        enter_extension(books, hold, hold.amount - before, request.request_id, now_us)
    if request.HasField("time_to_live"):
        expire_us = now_us + max(1, microseconds(request.time_to_live))
        hold = hold._replace(expire_us=max(hold.expire_us, expire_us))
    return hold


def _filled(books: Books, hold: Hold, target: int) -> Hold:
    """A lease with as much credit as ``target``, as far as the balance and the overdraft go."""
    purse = books.purse(hold.currency)
    most = purse.available + (0 if books.shadow else purse.overdraft_limit)
    room = MAX - purse.held - purse.spent
    return add(books, hold, max(0, min(target - hold.remaining, most, room)))
