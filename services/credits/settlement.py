"""What time does to an account: holds and grants whose time is over, and refills.

It is applied when the account is touched next, and by the sweeper when nobody touches it, always in
one transaction with its ledger entries. One operation applies a bounded part.
"""

from __future__ import annotations

from services.credits.account import Account
from services.credits.grants import refill_next
from services.credits.holds import due_hold, expire, stored_hold
from services.credits.records import HOLD_EXPIRIES, NEVER_US
from services.store.port import Transaction

STEPS = 400
"""Holds, lots and refills that one operation settles, about: far below the store's limits."""


class SettlementDueError(Exception):
    """More of an account is due than was settled along the way: settle it, then ask again.

    Never leaves the service.
    """


def opened(tx: Transaction, account_id: str, *, now_us: int, keep_us: int) -> Account:
    """The account with everything applied that time did to it; raises ``SettlementDueError``."""
    account = Account(tx, account_id, now_us)
    if account.wallet.agenda_us <= now_us and not catch_up(account, keep_us):
        raise SettlementDueError
    return account


def settle(tx: Transaction, account_id: str, *, now_us: int, keep_us: int) -> bool:
    """Applies a bounded part of what is due and says whether that was all; harmless to repeat."""
    account = Account(tx, account_id, now_us)
    if account.wallet.agenda_us > now_us:
        return True
    settled = catch_up(account, keep_us)
    account.save()
    return settled


def catch_up(account: Account, keep_us: int) -> bool:
    """Applies a bounded part of what is due and says whether that was all; then save the account.

    In the order of time: what ends before a refill, then the refill.
    """
    steps, wallet = STEPS, account.wallet
    while steps > 0:
        until_us = min(account.now_us, wallet.refills_us - 1)
        if wallet.holds_us <= until_us:
            steps -= _expire_holds(account, steps, keep_us, until_us)
        for currency in wallet.purses:
            steps -= account.expire_lots(currency, max(0, steps), until_us)
        if steps <= 0 or wallet.refills_us > account.now_us:
            break
        refill_next(account)
        steps -= 1
    next_lots = (purse.head[0].expire_us for purse in wallet.purses.values() if purse.head)
    account.reschedule(min(wallet.holds_us, wallet.refills_us, *next_lots, NEVER_US))
    return wallet.agenda_us > account.now_us


def _expire_holds(account: Account, steps: int, keep_us: int, until_us: int) -> int:
    """Settles holds in the order of their expiry, at least one; says how many steps that took."""
    taken = 0
    begin, end = HOLD_EXPIRIES.range(account.account_id)
    for key, value in account.tx.range(begin, end, limit=steps + 1):
        expire_us, number = due_hold(key, value)
        if expire_us > until_us or taken >= steps:
            account.wallet.holds_us = expire_us
            return taken
        hold = stored_hold(account.tx, account.account_id, number)
        if hold is None:
            raise LookupError(f"hold {number} of {account.account_id} is gone")
        expire(account, number, hold, keep_us)
        taken += 1 + len(hold.lots)
    account.wallet.holds_us = NEVER_US
    return taken
