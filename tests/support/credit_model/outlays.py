"""Credit that goes out, to the model: what debits and captures have in common."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from tollmesh.credits.v1 import credits_pb2 as pb

from tests.support.credit_model.books import (
    DAY_US,
    Books,
    Lot,
    Metered,
    Outlay,
    Refused,
    Usage,
    entry_name,
)
from tests.support.credit_model.books import total as total_of
from tests.support.credit_model.messages import balance_message
from tests.support.credit_model.prices import MAX, Price, Tariff, priced, use_up


def debit(books: Books, tariff: Tariff, request: pb.DebitRequest, now_us: int) -> pb.DebitResponse:
    """Takes the price out of the balance, all or nothing."""
    price = priced(books, tariff, request, request.currency, now_us)
    amount = payable(books, price, price.amount, limit=True, shortfall=price.shadow)
    short = price.amount - amount
    count(books, price, amount, short, now_us)
    taken = books.spend(price.currency, amount)
    number = enter(
        books,
        pb.ENTRY_KIND_DEBIT,
        price._replace(amount=amount),
        taken,
        now_us,
        request_id=request.request_id,
        resource=request.resource,
        shortfall=short,
    )
    balance = balance_message(books, price.currency)
    return pb.DebitResponse(
        entry_id=entry_name(number), amount=amount, balance=balance, shortfall=short
    )


def payable(books: Books, price: Price, amount: int, *, limit: bool, shortfall: bool) -> int:
    """How much of ``amount`` is taken from what is available.

    Args:
        limit: whether the overdraft limit counts.
        shortfall: whether it may be less; it may in shadow mode, too.
    """
    purse = books.purse(price.currency)
    if amount <= purse.available or not amount:
        return amount
    if shortfall or books.shadow:
        return max(0, purse.available)
    most = purse.available + (purse.overdraft_limit if limit else 0)
    if amount > most:
        raise Refused("INSUFFICIENT_CREDIT", currency=price.currency, needed=amount, available=most)
    if purse.held + purse.spent + amount > MAX:
        raise Refused("AMOUNT_OUT_OF_RANGE")
    return amount


def count(
    books: Books, price: Price, amount: int, short: int, now_us: int, deliveries: int = 1
) -> None:
    """Counts what was metered in the day's usage, and what was free of it as used up."""
    use_up(books, price.allowance, price.free)
    if (metered := price.metered) is None:
        return
    if metered.quantity > room_today(books, metered, price.currency, now_us):
        raise Refused("AMOUNT_OUT_OF_RANGE")
    key = now_us // DAY_US, metered.meter, metered.cache, price.currency
    day = books.usage.get(key, Usage())
    books.usage[key] = day._replace(
        quantity=day.quantity + metered.quantity,
        amount=day.amount + amount,
        deliveries=day.deliveries + deliveries,
        shortfall=day.shortfall + short,
        free_quantity=day.free_quantity + price.free,
    )


def room_today(books: Books, metered: Metered, currency: str, now_us: int) -> int:
    """How much more of a meter can be counted today."""
    key = now_us // DAY_US, metered.meter, metered.cache, currency
    return MAX - books.usage.get(key, Usage()).quantity


def count_refund(books: Books, metered: Metered, currency: str, amount: int, now_us: int) -> None:
    """Counts what was refunded in the day's usage."""
    key = now_us // DAY_US, metered.meter, metered.cache, currency
    day = books.usage.get(key, Usage())
    books.usage[key] = day._replace(
        refunded_quantity=day.refunded_quantity + metered.quantity,
        refunded_amount=day.refunded_amount + amount,
    )


def enter(
    books: Books,
    kind: pb.EntryKind.ValueType,
    price: Price,
    taken: tuple[Lot, ...],
    now_us: int,
    *,
    hold: int = 0,
    **fields: Any,  # noqa: ANN401 (of an entry)
) -> int:
    """Writes the entry of a debit or capture that moved ``price.amount``; gives its number."""
    number = books.enter(
        kind,
        price.currency,
        price.amount,
        now_us,
        hold=hold,
        grant=grant_of(taken),
        metered=price.metered.message() if price.metered else None,
        free_quantity=price.free,
        **fields,
    )
    lots = joined(taken)
    books.outlays[number] = Outlay(price.currency, price.amount, lots, price.metered, hold)
    return number


def grant_of(lots: tuple[Lot, ...]) -> int:
    """The grant that lots are of, if it is one alone; else 0."""
    grants = {lot.number for lot in lots}
    return grants.pop() if len(grants) == 1 else 0


def joined(lots: tuple[Lot, ...]) -> tuple[Lot, ...]:
    """Those of one place that follow each other as one."""
    groups = [list(group) for _, group in groupby(lots, key=lambda lot: lot[:3])]
    return tuple(group[0]._replace(remaining=total_of(group)) for group in groups)
