"""Credit that comes back, to the model: out of a hold, or because a debit is refunded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tollmesh.credits.v1 import credits_pb2 as pb

from tests.support.credit_model.books import (
    OVERDRAFT,
    Books,
    Lot,
    Outlay,
    Refused,
    entry_name,
    number_in,
    split,
    total,
)
from tests.support.credit_model.messages import balance_message
from tests.support.credit_model.outlays import count_refund, grant_of


def refund(books: Books, request: pb.RefundRequest, now_us: int) -> pb.RefundResponse:
    """Reverses a debit or capture, in part or whole."""
    number = number_in(request.entry_id)
    outlay = books.outlays.get(number)
    if outlay is None or entry_name(number) != request.entry_id:
        raise Refused("ENTRY_NOT_FOUND")
    left = outlay.amount - outlay.refunded
    amount = request.amount or left
    if not amount or amount > left:
        raise Refused("REFUND_EXCEEDS_ENTRY", refundable=left)
    quantity = 0
    if outlay.metered is not None:
        # The same part of the quantity as of the amount; the last amount takes the last of it.
        quantity = (outlay.metered.quantity - outlay.refunded_quantity) * amount // left
    ids = {"request_id": request.request_id, "resource": request.resource}
    entry = reverse(books, number, amount, quantity, now_us, hold=outlay.hold, **ids)
    balance = balance_message(books, outlay.currency)
    return pb.RefundResponse(entry_id=entry_name(entry), amount=amount, balance=balance)


def reverse(
    books: Books, number: int, amount: int, quantity: int, now_us: int, *, hold: int, **ids: str
) -> int:
    """Gives back a part of a debit or capture; gives the number of the refund's entry."""
    outlay = books.outlays[number]
    currency, metered = outlay.currency, outlay.metered
    if metered is not None:
        metered = metered._replace(quantity=quantity)
        count_refund(books, metered, currency, amount, now_us)
    lots = _last_taken(outlay, amount)
    books.outlays[number] = outlay._replace(
        refunded=outlay.refunded + amount, refunded_quantity=outlay.refunded_quantity + quantity
    )

    def enter(passing: int) -> int:
        return books.enter(
            pb.ENTRY_KIND_REFUND,
            currency,
            amount,
            now_us,
            passing=passing,
            hold=hold,
            grant=grant_of(lots),
            refunded=number,
            metered=None if metered is None else metered.message(),
            **ids,
        )

    if amount:
        books.move(currency, spent=-amount)
    return give_back(books, currency, lots, now_us, now_us, enter)


def give_back(
    books: Books,
    currency: str,
    lots: Sequence[Lot],
    now_us: int,
    until_us: int,
    enter: Callable[[int], int],
) -> int:
    """Makes credit available that was held or spent; that of grants which are over ends at once.

    Args:
        until_us: the time that has come as far as the account is concerned.
        enter: writes the entry that says why, given what is available for that moment alone.
    """
    over = [lot for lot in lots if lot.expire_us <= until_us or _voided(books, lot)]
    for lot in lots:
        if lot not in over:
            books.put(currency, lot)
    passing = total(over)
    number = enter(passing)
    for lot in over:
        passing -= lot.remaining
        voided = _voided(books, lot)
        books.move(currency, **{"voided" if voided else "expired": lot.remaining})
        kind = pb.ENTRY_KIND_VOID_GRANT if voided else pb.ENTRY_KIND_EXPIRE_GRANT
        books.enter(kind, currency, lot.remaining, now_us, grant=lot.number, passing=passing)
    return number


def _voided(books: Books, lot: Lot) -> bool:
    return lot.number != OVERDRAFT and books.grants[lot.number].voided


def _last_taken(outlay: Outlay, amount: int) -> tuple[Lot, ...]:
    """What was taken last, without what was refunded before."""
    backwards = tuple(reversed(outlay.lots))
    _, rest = split(backwards, outlay.refunded)
    first, _ = split(rest, amount)
    return first
