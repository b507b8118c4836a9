"""Refunds: debits and captures that are reversed, in part or whole, and once.

The credit returns to the grants that it came from, what was taken last first. Their terms say when
it expires: what a recurring grant gave in an earlier period is over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from services.credits import lots
from services.credits.account import Account
from services.credits.entries import entry_of
from services.credits.errors import EntryNotFoundError, RefundExceedsEntryError
from services.credits.names import entry_number
from services.credits.records import (
    ENTRIES,
    NEVER_US,
    OVERDRAFT_LOT,
    REFUNDS,
    Answer,
    Entry,
    EntryKind,
    Lot,
    RefillPeriod,
    Refunded,
    decode_refunded,
)
from services.credits.recurrence import boundary_us
from services.credits.returns import Origin, give_back
from services.store.records import changed, sealed_record

REFUNDABLE = {EntryKind.DEBIT, EntryKind.CAPTURE}


class Refund(NamedTuple):
    """Reverses a debit or capture."""

    account_id: str
    entry_id: str
    amount: int
    """0: all that was not refunded yet."""
    resource: str
    request_id: str
    fingerprint: bytes


class Reversal(NamedTuple):
    """A part of an entry that is reversed."""

    number: int
    """Of the entry."""
    entry: Entry
    before: Refunded
    amount: int
    quantity: int
    """Of the metered quantity."""


def refund(account: Account, request: Refund) -> Answer:
    """Reverses a debit or capture, in part or whole.

    Of a metered quantity the same part is counted as refunded as of the amount, rounded down; what
    is left of it with the last of the amount. Raises ``EntryNotFoundError`` and
    ``RefundExceedsEntryError``.
    """
    number = entry_number(request.entry_id)
    entry = None if number is None else entry_of(account.tx, account.account_id, number)
    if number is None or entry is None or entry.kind not in REFUNDABLE:
        raise EntryNotFoundError
    before = refunded_of(account, number)
    left = entry.amount - before.amount
    amount = request.amount or left
    if not amount or amount > left:
        raise RefundExceedsEntryError.of(left)
    quantity = 0
    if entry.metered is not None:
        quantity = (entry.metered.quantity - before.quantity) * amount // left
    reversal = Reversal(number, entry, before, amount, quantity)
    refund_number = reverse(account, reversal, request.request_id, resource=request.resource)
    return account.answer(refund_number, amount, entry.currency)


def keys(account_id: str, entry_id: str) -> tuple[bytes, ...]:
    """What a refund of an entry reads."""
    number = entry_number(entry_id)
    if number is None:
        return ()
    return ENTRIES.key(account_id, number), REFUNDS.key(account_id, number)


def reverse(
    account: Account, reversal: Reversal, request_id: str, *, resource: str, hold: int = 0
) -> int:
    """Gives back a part of an entry, which must be left of it; gives the number of the refund."""
    number, entry, before, amount, quantity = reversal
    currency = entry.currency
    metered = None
    if entry.metered is not None:
        metered = changed(entry.metered, quantity=quantity)
        account.unmeter(metered, currency, amount)
    after = Refunded(before.amount + amount, before.quantity + quantity)
    key = REFUNDS.key(account.account_id, number)
    account.tx.set(key, sealed_record(key, after))
    returned = list(_last_taken(account, reversal))
    grant, sources = lots.sources(returned)
    enter = partial(
        account.enter,
        EntryKind.REFUND,
        currency,
        amount,
        request_id=request_id,
        hold=hold or entry.hold,
        grant=grant,
        metered=metered,
        resource=resource,
        refunded=number,
        sources=sources,
    )
    return give_back(account, currency, returned, Origin.SPENT, enter, account.now_us)


def refunded_of(account: Account, number: int) -> Refunded:
    """What of an entry was refunded already."""
    key = REFUNDS.key(account.account_id, number)
    stored = account.tx.get(key)
    return Refunded(0) if stored is None else decode_refunded(key, stored)


def _last_taken(account: Account, reversal: Reversal) -> Iterator[Lot]:
    """What was taken last, without what was refunded before, as lots of its grants."""
    entry, skip, left = reversal.entry, reversal.before.amount, reversal.amount
    for grant, taken, *expiry in reversed(entry.sources or ((entry.grant, entry.amount),)):
        skipped = min(skip, taken)
        skip -= skipped
        part = min(left, taken - skipped)
        left -= part
        if part:
            yield _lot(account, grant, part, reversal.number, expiry)


def _lot(account: Account, grant: int, amount: int, taken_by: int, expiry: Sequence[int]) -> Lot:
    if grant == OVERDRAFT_LOT:
        return Lot(NEVER_US, 0, OVERDRAFT_LOT, amount, amount, account.now_us)
    terms = account.grant_terms(grant)
    if terms is None:
        raise LookupError(f"grant {grant} of {account.account_id} is gone")
    expire_us = terms.expire_us
    if expiry:
        expire_us = expiry[0]
    elif taken_by < terms.refilled:
        # An entry that does not say: it was over when the present period began.
        expire_us = boundary_us(terms.create_us, RefillPeriod(terms.period), terms.refills)
    whole = terms.added or terms.amount
    return Lot(expire_us, terms.priority, grant, amount, whole, terms.create_us)
