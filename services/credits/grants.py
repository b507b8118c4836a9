"""Grants: credit that comes in, once or each period, and is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.credits.account import Account
from services.credits.errors import (
    AccountFullError,
    GrantNotFoundError,
    GrantNotOpenError,
    invalid,
)
from services.credits.names import grant_number
from services.credits.records import (
    GRANTS,
    MAX_AMOUNT,
    NEVER_US,
    REFILLS,
    Answer,
    EntryKind,
    GrantTerms,
    Lot,
    RefillPeriod,
    decode_grant,
)
from services.credits.recurrence import boundary_us
from services.store.port import ReadTransaction
from services.store.records import changed, sealed, unsealed

MAX_UNSPENT_GRANTS = 1000
"""In one account and currency; so a debit that uses up all of them is still a small operation."""
MAX_RECURRING_GRANTS = 100
"""That an account waits for a refill of; so the end of a month is still a small operation."""


class Recurrence(NamedTuple):
    """How a grant is refilled."""

    period: RefillPeriod
    end_us: int
    """No refill from then on."""
    max_rollover: int
    """How much unspent credit is carried into the next period."""


class Grant(NamedTuple):
    """Adds credit."""

    account_id: str
    currency: str
    amount: int
    priority: int
    expire_us: int
    """NEVER_US: does not expire; of a recurring grant, until its period is over."""
    resource: str
    request_id: str
    fingerprint: bytes
    recurrence: Recurrence | None = None


class VoidGrant(NamedTuple):
    """Takes a grant back."""

    account_id: str
    grant_id: str
    resource: str
    request_id: str
    fingerprint: bytes


def grant(account: Account, request: Grant) -> Answer:
    """Adds credit that is spent in its turn (see ``lots``).

    Raises ``AmountOutOfRangeError``; ``InvalidArgumentError`` for an expiry in the past, and for
    one of a recurring grant; ``AccountFullError`` for too many currencies, unspent grants or
    recurring ones.
    """
    currency, amount, now_us = request.currency, request.amount, account.now_us
    purse = account.own_purse(currency)
    if len(purse.head) + purse.tail >= MAX_UNSPENT_GRANTS:
        raise AccountFullError.of(f"unspent grants in {currency}", MAX_UNSPENT_GRANTS)
    number = account.wallet.sequence + 1
    terms = _terms(account, request)
    lot = Lot(terms.expire_us, terms.priority, number, amount, amount, now_us)
    account.receive(currency, lot)
    account.enter(
        EntryKind.GRANT,
        currency,
        amount,
        request_id=request.request_id,
        grant=number,
        resource=request.resource,
    )
    account.set_grant_terms(number, terms)
    _schedule(account, number, terms)
    return account.answer(number, amount, currency)


def void_grant(account: Account, request: VoidGrant) -> Answer:
    """Takes back what is unspent of a grant, and ends its refills.

    Raises ``GrantNotFoundError``, and ``GrantNotOpenError`` when nothing can be left of it: it was
    voided before, its time is over, or it is spent and nothing of its currency is held.
    """
    number = grant_number(account.account_id, request.grant_id)
    terms = None if number is None else account.grant_terms(number)
    if number is None or terms is None:
        raise GrantNotFoundError
    if terms.voided:
        raise GrantNotOpenError.of("VOIDED")
    amount = account.withdraw(terms.currency, _place(number, terms))
    if not amount and terms.next_refill_us == NEVER_US:
        if terms.expire_us <= account.now_us:
            raise GrantNotOpenError.of("EXPIRED")
        if not account.purse(terms.currency).held:
            raise GrantNotOpenError.of("SPENT")
    account.own_purse(terms.currency).voided += amount
    account.wallet.voids = True
    entry = account.enter(
        EntryKind.VOID_GRANT,
        terms.currency,
        amount,
        request_id=request.request_id,
        grant=number,
        resource=request.resource,
    )
    if terms.next_refill_us != NEVER_US:
        account.tx.clear(REFILLS.key(account.account_id, terms.next_refill_us, number))
        account.wallet.refills_us = _next_refill_us(account)
    ended = changed(terms, voided=True, next_refill_us=NEVER_US)
    account.set_grant_terms(number, ended)
    return account.answer(entry, amount, terms.currency)


def keys(account_id: str, grant_id: str) -> tuple[bytes, ...]:
    """What an operation about a grant reads."""
    number = grant_number(account_id, grant_id)
    return () if number is None else (GRANTS.key(account_id, number),)


def refill_next(account: Account) -> None:
    """Refills the recurring grant that is due at ``refills_us``, for one period.

    There is none when that is not up to date: then what ends before the next one comes first.
    """
    begin, end = REFILLS.range(account.account_id)
    for key, value in account.tx.range(begin, end, limit=1):
        unsealed(key, value)
        _, refill_us, number = REFILLS.parts(key)
        if int(refill_us) <= account.wallet.refills_us:
            account.tx.clear(key)
            _refill(account, int(number))
    account.wallet.refills_us = _next_refill_us(account)


def recurring(tx: ReadTransaction, account_id: str, lots: Sequence[Lot]) -> dict[int, GrantTerms]:
    """The terms of those grants among some lots that are, or were, refilled; by their numbers."""
    numbers = [lot.number for lot in lots]
    keys = [GRANTS.key(account_id, number) for number in numbers]
    terms = {
        number: decode_grant(key, stored)
        for number, key, stored in zip(numbers, keys, tx.get_many(keys), strict=True)
        if stored is not None
    }
    return {number: known for number, known in terms.items() if known.period}


def _terms(account: Account, request: Grant) -> GrantTerms:
    now_us, recurrence = account.now_us, request.recurrence
    terms = GrantTerms(
        request.currency, request.amount, request.priority, request.expire_us, now_us
    )
    if request.expire_us <= now_us:
        raise invalid("expire_time", "must be in the future")
    if recurrence is None:
        return terms
    if request.expire_us != NEVER_US:
        raise invalid("expire_time", "must be absent: a recurring grant expires with its period")
    if recurrence.end_us <= now_us:
        raise invalid("recurrence.end_time", "must be in the future")
    refills = REFILLS.range(account.account_id)
    if len(account.tx.range(*refills, limit=MAX_RECURRING_GRANTS)) == MAX_RECURRING_GRANTS:
        raise AccountFullError.of("recurring grants", MAX_RECURRING_GRANTS)
    terms = changed(
        terms,
        period=int(recurrence.period),
        end_us=recurrence.end_us,
        max_rollover=recurrence.max_rollover,
    )
    return _in_period(terms, 0)


def _in_period(terms: GrantTerms, refills: int) -> GrantTerms:
    """The terms as they are after so many refills."""
    end_us = boundary_us(terms.create_us, RefillPeriod(terms.period), refills + 1)
    next_us = end_us if end_us < terms.end_us else NEVER_US
    return changed(terms, refills=refills, expire_us=end_us, next_refill_us=next_us)


def _next_refill_us(account: Account) -> int:
    begin, end = REFILLS.range(account.account_id)
    first = account.tx.range(begin, end, limit=1)
    return int(REFILLS.parts(first[0][0])[1]) if first else NEVER_US


def _schedule(account: Account, number: int, terms: GrantTerms) -> None:
    due_us = terms.next_refill_us
    if due_us != NEVER_US:
        key = REFILLS.key(account.account_id, due_us, number)
        account.tx.set(key, sealed(key, b""))
        account.wallet.refills_us = min(account.wallet.refills_us, due_us)
        account.expect(due_us)


def _refill(account: Account, number: int) -> None:
    """Ends a period: what is left expires but for the rollover, and the amount is added anew."""
    terms = account.grant_terms(number)
    if terms is None:
        raise LookupError(f"grant {number} of {account.account_id} is gone")
    currency, purse = terms.currency, account.own_purse(terms.currency)
    left = account.withdraw(currency, _place(number, terms))
    kept = min(left, terms.max_rollover)
    # Time cannot be refused, so what is more than an account can have is not added.
    added = min(terms.amount, MAX_AMOUNT - purse.granted)
    terms = _in_period(terms, terms.refills + 1)
    lot = Lot(terms.expire_us, terms.priority, number, kept, kept + added, terms.create_us)
    account.put(currency, lot)
    if left > kept:
        purse.expired += left - kept
        account.enter(EntryKind.EXPIRE_GRANT, currency, left - kept, grant=number)
    account.receive(currency, changed(lot, remaining=added))
    entry = account.enter(EntryKind.REFILL_GRANT, currency, added, grant=number)
    account.set_grant_terms(number, changed(terms, refilled=entry, added=kept + added))
    _schedule(account, number, terms)


def _place(number: int, terms: GrantTerms) -> Lot:
    """Where the credit of a grant's present period stands."""
    return Lot(terms.expire_us, terms.priority, number, 0, 0, 0)
