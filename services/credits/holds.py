"""Holds: credit that is set aside until it is captured, released, or its time is over.

A hold remembers which grants its credit came from. What is released returns to them; if the time of
a grant is over by then, its credit expires at once. What is captured was spent in time: a grant's
expiry does not touch credit under a hold. A lease is a hold with an owner (see ``leases``).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from services.credits import lots
from services.credits.account import Account
from services.credits.errors import (
    HoldNotFoundError,
    HoldNotOpenError,
    LeaseNotOwnedError,
)
from services.credits.names import hold_number
from services.credits.records import (
    CLOSED_HOLDS,
    HOLD_EXPIRIES,
    HOLDS,
    MAX_AMOUNT,
    Answer,
    EntryKind,
    ExpiryPolicy,
    Hold,
    HoldState,
    HoldView,
    decode_hold,
)
from services.credits.returns import Origin, give_back
from services.credits.tariff import Tariff
from services.store.port import ReadTransaction, Transaction
from services.store.records import changed, is_intact, sealed, sealed_record, unsealed


class Release(NamedTuple):
    """Gives a hold back."""

    account_id: str
    hold_id: str
    request_id: str
    fingerprint: bytes


class HoldTerms(NamedTuple):
    """What the service decides about holds."""

    tariff: Tariff
    keep_us: int
    """For how long a closed hold is still known as such."""


def release(account: Account, request: Release, terms: HoldTerms) -> Answer:
    """Gives a hold back.

    Raises ``HoldNotFoundError``, ``HoldNotOpenError`` and ``LeaseNotOwnedError``.
    """
    number, hold = open_hold_of(account, request.hold_id)
    entry = return_rest(account, number, hold, request.request_id, account.now_us)
    closed = close(account, number, hold, HoldState.RELEASED, terms.keep_us)
    return account.answer(entry, hold.remaining, hold.currency, view(number, closed))


def expire(account: Account, number: int, hold: Hold, keep_us: int) -> None:
    """Does with an open hold what its policy says, as of its expiry, however late that is noticed.

    What comes back to a grant that was not over then pays what is owed; the rest expires later.
    """
    if hold.policy == ExpiryPolicy.DEBIT_ESTIMATE:
        hold = _debit_estimate(account, number, hold)
    else:
        return_rest(account, number, hold, "", hold.expire_us)
    close(account, number, hold, HoldState.EXPIRED, keep_us)


def return_rest(account: Account, number: int, hold: Hold, request_id: str, until_us: int) -> int:
    """Returns what is left of a hold to its grants; gives the number of the entry."""
    enter = partial(
        account.enter,
        EntryKind.RELEASE,
        hold.currency,
        hold.remaining,
        request_id=request_id,
        hold=number,
        resource=hold.resource,
    )
    return give_back(account, hold.currency, hold.lots, Origin.HELD, enter, until_us)


def prolonged(account: Account, number: int, hold: Hold, time_to_live_us: int) -> Hold:
    """A hold that lives so long from now on; an expiry that is later stays."""
    expire_us = account.now_us + time_to_live_us
    if expire_us <= hold.expire_us:
        return hold
    account.tx.clear(HOLD_EXPIRIES.key(account.account_id, hold.expire_us, number))
    hold = changed(hold, expire_us=expire_us)
    schedule(account, number, hold)
    return hold


def close(account: Account, number: int, hold: Hold, state: HoldState, keep_us: int) -> Hold:
    """Ends a hold; its record stays for a while, so that late callers learn what became of it."""
    name = account.account_id
    closed = changed(hold, state=state, remaining=0, lots=())
    store(account, number, closed)
    account.count_holds(-1)
    account.tx.clear(HOLD_EXPIRIES.key(name, hold.expire_us, number))
    forget_s = (account.now_us + keep_us) // 1_000_000 + 1
    key = CLOSED_HOLDS.key(forget_s, name, number)
    account.tx.set(key, sealed(key, b""))
    return closed


def store(account: Account, number: int, hold: Hold) -> None:
    """Writes a hold."""
    key = HOLDS.key(account.account_id, number)
    account.tx.set(key, sealed_record(key, hold))


def schedule(account: Account, number: int, hold: Hold) -> None:
    """Has an open hold looked at when it expires."""
    key = HOLD_EXPIRIES.key(account.account_id, hold.expire_us, number)
    account.tx.set(key, sealed(key, b""))
    account.wallet.holds_us = min(account.wallet.holds_us, hold.expire_us)
    account.expect(hold.expire_us)


def forget_closed(tx: Transaction, *, now_us: int, limit: int) -> int:
    """Removes the records of at most ``limit`` closed holds that were kept long enough.

    What is damaged stays: it may name another hold. An audit finds it.
    """
    begin, _ = CLOSED_HOLDS.range()
    due = tx.range(begin, CLOSED_HOLDS.key(now_us // 1_000_000), limit=limit)
    intact = [key for key, value in due if is_intact(key, value)]
    for key in intact:
        _, account_id, number = CLOSED_HOLDS.parts(key)
        tx.clear(HOLDS.key(account_id, number))
        tx.clear(key)
    return len(intact)


def keys(account_id: str, hold_id: str) -> tuple[bytes, ...]:
    """What an operation about a hold reads."""
    number = hold_number(account_id, hold_id)
    return () if number is None else (HOLDS.key(account_id, number),)


def known_hold(account: Account, hold_id: str) -> tuple[int, Hold]:
    """A hold or lease in any state, and its number; raises ``HoldNotFoundError``."""
    number = hold_number(account.account_id, hold_id)
    hold = None if number is None else stored_hold(account.tx, account.account_id, number)
    if number is None or hold is None:
        raise HoldNotFoundError
    return number, hold


def due_hold(key: bytes, value: bytes) -> tuple[int, int]:
    """When a hold expires, and its number, by a record of HOLD_EXPIRIES."""
    unsealed(key, value)
    _, expire_us, number = HOLD_EXPIRIES.parts(key)
    return int(expire_us), int(number)


def stored_hold(tx: ReadTransaction, account_id: str, number: int) -> Hold | None:
    """A hold by its number."""
    key = HOLDS.key(account_id, number)
    stored = tx.get(key)
    return None if stored is None else decode_hold(key, stored)


def open_hold_of(account: Account, hold_id: str) -> tuple[int, Hold]:
    """An open hold that is no lease, and its number.

    Raises ``HoldNotFoundError``, ``HoldNotOpenError`` and ``LeaseNotOwnedError``.
    """
    number, hold = known_hold(account, hold_id)
    if hold.owner:
        raise LeaseNotOwnedError
    if hold.state != HoldState.OPEN:
        raise HoldNotOpenError.of(HoldState(hold.state).name)
    return number, hold


def view(number: int, hold: Hold) -> HoldView:
    """A hold as an answer shows it."""
    return HoldView(
        number,
        hold.amount,
        hold.captured,
        hold.remaining,
        hold.state,
        hold.expire_us,
        hold.policy,
        hold.excess_rule,
        hold.shortfall,
        hold.owner,
        hold.resource,
    )


def _debit_estimate(account: Account, number: int, hold: Hold) -> Hold:
    """Debits what is left of a hold, and meters what is left of its estimate."""
    metered, free = hold.estimate, 0
    if hold.captured and not hold.remaining:
        metered = None  # What captures took was all of it.
    if metered is not None:
        # Time cannot be refused, so a day's counter that is full stays full.
        room = account.usage_room(metered, hold.currency)
        metered = changed(metered, quantity=min(metered.quantity, room))
        free = min(hold.free, metered.quantity)
        account.meter(metered, hold.currency, hold.remaining, free=free)
        if free:
            account.counted(hold.allowance).free += free
    account.spend_held(hold.currency, hold.remaining)
    grant, sources = lots.sources(hold.lots)
    entry = account.enter(
        EntryKind.CAPTURE,
        hold.currency,
        hold.remaining,
        hold=number,
        grant=grant,
        metered=metered,
        resource=hold.resource,
        free=free,
        sources=sources,
    )
    return changed(
        hold,
        captured=min(MAX_AMOUNT, hold.captured + hold.remaining),
        debited=hold.remaining,
        debited_estimate=metered,
        debited_entry=entry,
        free=free,
    )
