"""Grants: credit that comes in."""

from __future__ import annotations

from typing import NamedTuple

from services.credits.account import Account
from services.credits.errors import invalid
from services.credits.records import Answer, EntryKind, GrantTerms, Lot

MAX_CURRENCIES = 64
"""In one account; so its wallet stays below the store's limit for a value."""
MAX_UNSPENT_GRANTS = 1000
"""In one account and currency; so a debit that uses up all of them is still a small operation."""


class Grant(NamedTuple):
    """Adds credit."""

    account_id: str
    currency: str
    amount: int
    priority: int
    expire_us: int
    """NEVER_US: does not expire."""
    resource: str
    request_id: str
    fingerprint: bytes


def grant(account: Account, request: Grant) -> Answer:
    """Adds credit that is spent in its turn (see ``lots``).

    Raises ``AmountOutOfRangeError``; ``InvalidArgumentError`` for an expiry in the past, and for
    more than MAX_CURRENCIES or MAX_UNSPENT_GRANTS.
    """
    if request.expire_us <= account.now_us:
        raise invalid("expire_time", "must be in the future")
    currency = request.currency
    if currency not in account.wallet.purses and len(account.wallet.purses) >= MAX_CURRENCIES:
        currencies = f"the account has {MAX_CURRENCIES} currencies, the most"
        raise invalid("currency", currencies)
    purse = account.purse(currency)
    if len(purse.head) + purse.tail >= MAX_UNSPENT_GRANTS:
        unspent = f"the account has {MAX_UNSPENT_GRANTS} unspent grants in {currency}, the most"
        raise invalid("account_id", unspent)
    number = account.wallet.sequence + 1
    amount, now_us = request.amount, account.now_us
    lot = Lot(request.expire_us, request.priority, number, amount, amount, now_us)
    account.receive(currency, lot)
    account.enter(
        EntryKind.GRANT,
        currency,
        amount,
        request_id=request.request_id,
        grant=number,
        resource=request.resource,
    )
    terms = GrantTerms(currency, amount, request.priority, request.expire_us, now_us)
    account.set_grant_terms(number, terms)
    return account.answer(number, amount, currency)
