"""Debits: credit that goes out at once; and the price of what is debited, reserved or captured."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from services.credits import lots
from services.credits.account import Account
from services.credits.errors import invalid
from services.credits.records import (
    ALLOWANCES,
    NEVER_US,
    Answer,
    EntryKind,
    Metered,
    Purse,
)
from services.credits.tariff import Rates, Tariff, cost

DEFAULT_CURRENCY = "credit"

Price = int | Metered
"""An amount, or a quantity that the tariff prices."""


class Debit(NamedTuple):
    """Takes credit."""

    account_id: str
    currency: str
    """Empty: the tariff's, or DEFAULT_CURRENCY."""
    price: Price
    resource: str
    request_id: str
    fingerprint: bytes


class Priced(NamedTuple):
    """What a price comes to, for one account and now."""

    currency: str
    amount: int
    metered: Metered | None = None
    free: int = 0
    """How much of the metered quantity is free of charge."""
    allowance: bytes = b""
    """The key that counts what was free in this period, if the meter has an allowance."""
    shadow: bool = False
    """Not refused for want of credit."""


def debit(account: Account, request: Debit, tariff: Tariff) -> Answer:
    """Takes the price out of the balance, all or nothing.

    Raises ``InsufficientCreditError``, ``MeterUnknownError``, ``AmountOutOfRangeError`` and
    ``InvalidArgumentError`` (a currency that is not the tariff's). What is nearly always the case,
    that one lot is enough, goes the shortest way here.
    """
    price, currency = request.price, request.currency
    if isinstance(price, int):
        amount, currency, metered = price, currency or DEFAULT_CURRENCY, None
    else:
        rates = tariff.rates(price.meter)
        if rates.free or currency not in {"", rates.currency}:
            return _debit(account, request, tariff)
        amount, currency, metered = cost(rates, price), rates.currency, price
    purse = account.wallet.purses.get(currency)
    if purse is None or not purse.head or purse.head[0].remaining <= amount:
        return _debit(account, request, tariff)
    if metered is not None:
        account.meter(metered, currency, amount)
    lot = purse.head[0]
    lot.remaining -= amount
    purse.available -= amount
    purse.spent += amount
    fields: tuple[object, ...] = (
        _DEBIT,
        currency,
        amount,
        purse.available,
        purse.held,
        account.now_us,
        request.request_id,
        0,
        lot.number if amount else 0,
        metered,
        request.resource,
    )
    if amount and lot.expire_us != NEVER_US:  # a refund must know the period
        fields += (0, 0, 0, ((lot.number, amount, lot.expire_us),), 0)
    return _answer(purse, account.append_entry(fields), amount, currency)


def _answer(purse: Purse, number: int, amount: int, currency: str) -> Answer:
    return Answer(
        number,
        amount,
        currency,
        purse.available,
        purse.held,
        purse.granted,
        purse.spent,
        purse.expired,
        None,
        purse.voided,
        purse.overdraft_limit,
    )


def _debit(account: Account, request: Debit, tariff: Tariff) -> Answer:
    price = priced(account, request.price, request.currency, tariff)
    currency = price.currency
    amount = account.payable(currency, price.amount, shortfall=price.shadow)
    shortfall = price.amount - amount
    count(account, price, amount, shortfall)
    grant, sources = lots.sources(account.spend(currency, amount))
    number = account.enter(
        EntryKind.DEBIT,
        currency,
        amount,
        request_id=request.request_id,
        grant=grant,
        metered=price.metered,
        resource=request.resource,
        shortfall=shortfall,
        free=price.free,
        sources=sources,
    )
    return account.answer(number, amount, currency, shortfall=shortfall)


def priced(
    account: Account, price: Price, currency: str, tariff: Tariff, deliveries: int = 1
) -> Priced:
    """The currency and amount of a price; the free allowance is looked at and not used up.

    ``deliveries`` is how many a metered quantity sums up.

    Raises ``MeterUnknownError``, ``AmountOutOfRangeError``, and ``InvalidArgumentError`` when the
    tariff's currency is not the one that was asked for.
    """
    if isinstance(price, int):
        return Priced(currency or DEFAULT_CURRENCY, price)
    rates = tariff.rates(price.meter)
    if currency not in {"", rates.currency}:
        rule = f"the tariff prices {price.meter} in {rates.currency}, not in {currency}"
        raise invalid("metered.meter", rule)
    free, allowance = 0, b""
    if rates.free:
        allowance = _allowance_key(account, price.meter, rates)
        used = account.counted(allowance).free
        free = max(0, min(price.quantity, rates.free - used))
    amount = cost(rates, price, free, deliveries)
    return Priced(rates.currency, amount, price, free, allowance, rates.shadow)


def count(
    account: Account, price: Priced, amount: int, shortfall: int, deliveries: int = 1
) -> None:
    """Counts a debit or capture in usage, and what was free of it in the allowance.

    ``amount`` is what was taken of the price. Raises ``AmountOutOfRangeError``.
    """
    metered = price.metered
    if metered is None:
        return
    free = price.free
    account.meter(metered, price.currency, amount, shortfall=shortfall, free=free, count=deliveries)
    if price.free:
        account.counted(price.allowance).free += price.free


def _allowance_key(account: Account, meter: str, rates: Rates) -> bytes:
    first_day = rates.free_period.first_day(account.now_us)
    return _counter_key(account.account_id, meter, int(rates.free_period), first_day)


_DEBIT = int(EntryKind.DEBIT)
_counter_key = lru_cache(4096)(ALLOWANCES.key)
