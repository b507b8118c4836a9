"""Terms of an account: how far it may go below zero, and whether anything is refused at all."""

from __future__ import annotations

from typing import NamedTuple

from services.credits.account import Account, load_wallet
from services.credits.records import Answer, EntryKind, Purse
from services.store.port import ReadTransaction
from services.store.records import changed


class SetTerms(NamedTuple):
    """Changes terms; None leaves one as it is."""

    account_id: str
    currency: str
    overdraft_limit: int | None
    shadow: bool | None
    """Of the account, in all currencies."""
    request_id: str
    fingerprint: bytes


class TermsView(NamedTuple):
    """The terms of an account in one currency."""

    overdraft_limit: int
    shadow: bool
    version: int = 0


def set_terms(account: Account, request: SetTerms) -> Answer:
    """Changes terms; the entry's resource says which.

    What is owed stays owed, even if it is more than a new limit. Raises ``AccountFullError``.
    """
    changes = []
    if request.overdraft_limit is not None:
        account.own_purse(request.currency).overdraft_limit = request.overdraft_limit
        changes.append(f"overdraft_limit={request.overdraft_limit}")
    if request.shadow is not None:
        account.wallet.shadow = request.shadow
        changes.append(f"shadow={str(request.shadow).lower()}")
    number = account.enter(
        EntryKind.SET_TERMS,
        request.currency,
        0,
        request_id=request.request_id,
        resource=" ".join(changes),
    )
    answer = account.answer(number, 0, request.currency)
    return changed(answer, shadow=account.wallet.shadow)


def terms(tx: ReadTransaction, *, account_id: str, currency: str) -> TermsView:
    """The terms; an account that was never told any has no limit and refuses."""
    wallet = load_wallet(tx, account_id)
    limit = wallet.purses.get(currency, Purse()).overdraft_limit
    return TermsView(limit, wallet.shadow)
