"""Credit that comes back to its grants: out of a hold, or because a debit is refunded.

Credit of a grant whose time is over, or that was voided, is for a moment available (the entry that
brings it back says so) and then expires or is voided, with an entry of its own. It never pays a
debt: only credit that stays does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from itertools import compress

from services.credits.account import Account
from services.credits.records import EntryKind, Lot


class Origin(Enum):
    """Out of which part of a purse credit comes back."""

    HELD = "held"
    SPENT = "spent"


def give_back(
    account: Account,
    currency: str,
    lots: Sequence[Lot],
    origin: Origin,
    enter: Callable[[], int],
    until_us: int,
) -> int:
    """Makes lots available that were held or spent, and ends those whose grant is over.

    ``enter`` writes the entry that says why, when all of them are available; its number is the
    answer. ``until_us`` is the time by which a lot is over: now, unless time is being caught up on.
    """
    if not lots:
        return enter()
    voided = _voided(account, lots)
    stays = [lot.expire_us > until_us and lot.number not in voided for lot in lots]
    over = [lot for lot, stay in zip(lots, stays, strict=True) if not stay]
    purse = account.own_purse(currency)
    total = sum(lot.remaining for lot in lots)
    if origin is Origin.HELD:
        purse.held -= total
    else:
        purse.spent -= total
    for lot in compress(lots, stays):
        account.put(currency, lot)
    purse.available += sum(lot.remaining for lot in over)
    number = enter()
    for lot in over:
        purse.available -= lot.remaining
        if lot.number in voided:
            purse.voided += lot.remaining
            kind = EntryKind.VOID_GRANT
        else:
            purse.expired += lot.remaining
            kind = EntryKind.EXPIRE_GRANT
        account.enter(kind, currency, lot.remaining, grant=lot.number)
    return number


def _voided(account: Account, lots: Sequence[Lot]) -> set[int]:
    """The numbers of the grants among them that were voided."""
    if not account.wallet.voids:
        return set()
    numbers = {lot.number for lot in lots}
    terms = ((number, account.grant_terms(number)) for number in numbers)
    return {number for number, known in terms if known is not None and known.voided}
