"""Debits: credit that goes out at once; and the price of what is debited, reserved or captured."""

from __future__ import annotations

from typing import NamedTuple

from services.credits.account import Account
from services.credits.errors import invalid
from services.credits.records import Answer, EntryKind, Metered
from services.credits.tariff import Tariff

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


def debit(account: Account, request: Debit, tariff: Tariff) -> Answer:
    """Takes the price out of the balance, all or nothing.

    Raises ``InsufficientCreditError``, ``MeterUnknownError``, ``AmountOutOfRangeError`` and
    ``InvalidArgumentError`` (a currency that is not the tariff's).
    """
    currency, amount, metered = priced(request.price, request.currency, tariff)
    account.require(currency, amount)
    if metered is not None:
        account.meter(metered, currency, amount)
    account.spend(currency, amount)
    number = account.enter(
        EntryKind.DEBIT,
        currency,
        amount,
        request_id=request.request_id,
        metered=metered,
        resource=request.resource,
    )
    return account.answer(number, amount, currency)


def priced(price: Price, currency: str, tariff: Tariff) -> tuple[str, int, Metered | None]:
    """The currency and amount of a price, and the quantity if it was metered.

    Raises ``MeterUnknownError``, ``AmountOutOfRangeError``, and ``InvalidArgumentError`` when the
    tariff's currency is not the one that was asked for.
    """
    if isinstance(price, int):
        return currency or DEFAULT_CURRENCY, price, None
    tariff_currency, amount = tariff.price(price)
    if currency not in {"", tariff_currency}:
        rule = f"the tariff prices {price.meter} in {tariff_currency}, not in {currency}"
        raise invalid("metered.meter", rule)
    return tariff_currency, amount, price
