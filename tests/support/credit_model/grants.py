"""Credit that comes in and is taken back, to the model."""

from __future__ import annotations

from tollmesh.credits.v1 import credits_pb2 as pb

from tests.support.credit_model.books import NEVER, Books, Grant, Lot, Refused, microseconds
from tests.support.credit_model.messages import balance_message
from tests.support.credit_model.periods import period_end
from tests.support.credit_model.prices import MAX

CURRENCIES, UNSPENT, RECURRING = 64, 1000, 100
"""What an account may have at most."""


def grant(books: Books, request: pb.GrantRequest, now_us: int) -> pb.GrantResponse:
    """Adds credit."""
    currency, number = request.currency or "credit", books.sequence + 1
    require_room(books, currency)
    if len(books.purse(currency).lots) >= UNSPENT:
        raise Refused("ACCOUNT_FULL", limit=UNSPENT)
    new = _new(books, request, now_us)
    if books.purse(currency).granted + request.amount > MAX:
        raise Refused("AMOUNT_OUT_OF_RANGE")
    books.grants[number] = new
    if new.next_refill_us != NEVER:
        books.recurring |= {number}
    books.receive(currency, Lot(new.expire_us, new.priority, number, request.amount))
    ids = {"request_id": request.request_id, "resource": request.resource}
    books.enter(pb.ENTRY_KIND_GRANT, currency, request.amount, now_us, grant=number, **ids)
    name = books.grant_name(number)
    return pb.GrantResponse(grant_id=name, balance=balance_message(books, currency))


def void_grant(books: Books, request: pb.VoidGrantRequest, now_us: int) -> pb.VoidGrantResponse:
    """Takes back what is unspent of a grant, and ends its refills."""
    old = books.grant_of(request.grant_id)
    if old is None:
        raise Refused("GRANT_NOT_FOUND")
    if old.voided:
        raise Refused("GRANT_NOT_OPEN", state="VOIDED")
    currency = old.currency
    amount = books.withdraw(currency, place_of(old))
    if not amount and old.next_refill_us == NEVER:
        if old.expire_us <= now_us:
            raise Refused("GRANT_NOT_OPEN", state="EXPIRED")
        if not books.purse(currency).held:
            raise Refused("GRANT_NOT_OPEN", state="SPENT")
    books.move(currency, voided=amount)
    ids = {"request_id": request.request_id, "resource": request.resource}
    books.enter(pb.ENTRY_KIND_VOID_GRANT, currency, amount, now_us, grant=old.number, **ids)
    books.grants[old.number] = old._replace(voided=True, next_refill_us=NEVER)
    books.recurring -= {old.number}
    return pb.VoidGrantResponse(amount=amount, balance=balance_message(books, currency))


def refill(books: Books, old: Grant, now_us: int) -> None:
    """Ends a period: what is unspent expires but for the rollover, and the amount is added."""
    if old.recurrence is None:
        raise TypeError("not a recurring grant")
    currency = old.currency
    left = books.withdraw(currency, place_of(old))
    kept = min(left, old.recurrence.max_rollover)
    added = min(old.amount, MAX - books.purse(currency).granted)
    new = _in_period(old, old.refills + 1)._replace(added=kept + added)
    books.grants[new.number] = new
    if new.next_refill_us == NEVER:
        books.recurring -= {new.number}
    lot = Lot(*place_of(new), kept)
    books.put(currency, lot)
    if left > kept:
        books.move(currency, expired=left - kept)
        kind = pb.ENTRY_KIND_EXPIRE_GRANT
        books.enter(kind, currency, left - kept, now_us, grant=new.number)
    books.receive(currency, lot._replace(remaining=added))
    books.enter(pb.ENTRY_KIND_REFILL_GRANT, currency, added, now_us, grant=new.number)


def place_of(grant: Grant) -> tuple[int, int, int]:
    """Where the credit of its present period stands."""
    return grant.expire_us, grant.priority, grant.number


def require_room(books: Books, currency: str) -> None:
    """Refuses one currency too many."""
    if currency not in books.purses and len(books.purses) >= CURRENCIES:
        raise Refused("ACCOUNT_FULL", limit=CURRENCIES)


def _new(books: Books, request: pb.GrantRequest, now_us: int) -> Grant:
    expires = request.HasField("expire_time")
    expire_us = microseconds(request.expire_time) if expires else NEVER
    number, currency = books.sequence + 1, request.currency or "credit"
    amount, priority = request.amount, request.priority
    new = Grant(number, currency, amount, priority, now_us, expire_us, added=amount)
    if expire_us <= now_us:
        raise Refused("INVALID_ARGUMENT")
    if not request.HasField("recurrence"):
        return new
    if expires or _end_us(request.recurrence) <= now_us:
        raise Refused("INVALID_ARGUMENT")
    if len(books.recurring) >= RECURRING:
        raise Refused("ACCOUNT_FULL", limit=RECURRING)
    return _in_period(new._replace(recurrence=request.recurrence), 0)


def _in_period(grant: Grant, refills: int) -> Grant:
    recurrence = grant.recurrence or pb.Recurrence()
    end_us = period_end(grant.create_us, recurrence.period, refills)
    next_us = end_us if end_us < _end_us(recurrence) else NEVER
    return grant._replace(refills=refills, expire_us=end_us, next_refill_us=next_us)


def _end_us(recurrence: pb.Recurrence) -> int:
    return microseconds(recurrence.end_time) if recurrence.HasField("end_time") else NEVER
