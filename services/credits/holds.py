"""Holds: credit that is set aside until it is captured, released, or its time is over.

A hold remembers which grants its credit came from. What is released returns to them; if the time of
a grant is over by then, its credit expires at once. What is captured was spent in time: a grant's
expiry does not touch credit under a hold.
"""

from __future__ import annotations

from typing import NamedTuple

from services.credits import lots
from services.credits.account import Account
from services.credits.debits import Price, count, priced
from services.credits.errors import HoldNotFoundError, HoldNotOpenError, invalid
from services.credits.names import hold_number
from services.credits.records import (
    CLOSED_HOLDS,
    HOLD_EXPIRIES,
    HOLDS,
    Answer,
    EntryKind,
    ExpiryPolicy,
    Hold,
    HoldState,
    HoldView,
    Metered,
    decode_hold,
)
from services.credits.tariff import Tariff
from services.store.port import Transaction
from services.store.records import changed, encode

MAX_HOLD_LOTS = 1500
"""Grants that one hold takes from; so its record stays below the store's limit."""


class Reserve(NamedTuple):
    """Sets credit aside."""

    account_id: str
    currency: str
    """As in ``Debit``."""
    price: Price
    time_to_live_us: int
    policy: ExpiryPolicy
    resource: str
    request_id: str
    fingerprint: bytes


class Capture(NamedTuple):
    """Debits a hold."""

    account_id: str
    hold_id: str
    price: Price
    final: bool
    request_id: str
    fingerprint: bytes


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


def reserve(account: Account, request: Reserve, tariff: Tariff) -> Answer:
    """Sets the price aside, all or nothing.

    Raises ``InsufficientCreditError``, ``MeterUnknownError``, ``AmountOutOfRangeError`` and
    ``InvalidArgumentError`` (a currency that is not the tariff's, too many grants for one hold).
    """
    price = priced(account, request.price, request.currency, tariff)
    currency, metered = price.currency, price.metered
    amount = account.payable(currency, price.amount, shortfall=price.shadow)
    taken = account.hold(currency, amount)
    if len(taken) > MAX_HOLD_LOTS:
        rule = f"would take from {len(taken)} grants; a hold takes from {MAX_HOLD_LOTS} at most"
        raise invalid("amount", rule)
    expire_us = account.now_us + request.time_to_live_us
    number = account.enter(
        EntryKind.RESERVE,
        currency,
        amount,
        request_id=request.request_id,
        hold=account.wallet.sequence + 1,
        metered=metered,
        resource=request.resource,
    )
    hold = Hold(
        currency,
        amount,
        0,
        amount,
        HoldState.OPEN,
        expire_us,
        request.policy,
        request.resource,
        metered,
        tuple(taken),
    )
    account.tx.set(HOLDS.key(account.account_id, number), encode(hold))
    account.tx.set(HOLD_EXPIRIES.key(account.account_id, expire_us, number), b"")
    account.wallet.holds_us = min(account.wallet.holds_us, expire_us)
    account.expect(expire_us)
    return account.answer(number, amount, currency, _view(number, hold))


def capture(account: Account, request: Capture, terms: HoldTerms) -> Answer:
    """Takes the price out of an open hold, and what exceeds it out of the balance, all or nothing.

    Raises ``HoldNotFoundError``, ``HoldNotOpenError``, ``InsufficientCreditError``,
    ``MeterUnknownError``, ``AmountOutOfRangeError`` and ``InvalidArgumentError`` (a meter whose
    price is not in the hold's currency).
    """
    number, hold = _open_hold(account, request.hold_id)
    price = priced(account, request.price, hold.currency, terms.tariff)
    currency, amount, metered = price.currency, price.amount, price.metered
    above = max(0, amount - hold.remaining)
    account.payable(currency, above)
    count(account, price, amount, 0)
    account.spend_held(currency, amount - above)
    account.spend(currency, above)
    entry = account.enter(
        EntryKind.CAPTURE,
        currency,
        amount,
        request_id=request.request_id,
        hold=number,
        metered=metered,
        resource=hold.resource,
    )
    _, rest = lots.split(hold.lots, amount - above)
    hold = changed(
        hold,
        captured=hold.captured + amount,
        remaining=hold.remaining - (amount - above),
        estimate=_what_is_left(hold.estimate, metered),
        lots=tuple(rest),
    )
    if request.final:
        if hold.remaining:
            give_back(account, number, hold, request.request_id)
        hold = close(account, number, hold, HoldState.CAPTURED, terms.keep_us)
    else:
        account.tx.set(HOLDS.key(account.account_id, number), encode(hold))
    return account.answer(entry, amount, currency, _view(number, hold))


def release(account: Account, request: Release, terms: HoldTerms) -> Answer:
    """Gives a hold back; raises ``HoldNotFoundError`` and ``HoldNotOpenError``."""
    number, hold = _open_hold(account, request.hold_id)
    entry = give_back(account, number, hold, request.request_id)
    closed = close(account, number, hold, HoldState.RELEASED, terms.keep_us)
    return account.answer(entry, hold.remaining, hold.currency, _view(number, closed))


def expire(account: Account, number: int, hold: Hold, keep_us: int) -> None:
    """Does with an open hold what its policy says."""
    if hold.policy == ExpiryPolicy.DEBIT_ESTIMATE:
        metered = hold.estimate if hold.remaining else None
        if metered is not None:
            # Time cannot be refused, so a day's counter that is full stays full.
            room = account.usage_room(metered, hold.currency)
            metered = changed(metered, quantity=min(metered.quantity, room))
            account.meter(metered, hold.currency, hold.remaining)
        account.spend_held(hold.currency, hold.remaining)
        account.enter(
            EntryKind.CAPTURE,
            hold.currency,
            hold.remaining,
            hold=number,
            metered=metered,
            resource=hold.resource,
        )
        hold = changed(hold, captured=hold.captured + hold.remaining)
    else:
        give_back(account, number, hold, "")
    close(account, number, hold, HoldState.EXPIRED, keep_us)


def give_back(account: Account, number: int, hold: Hold, request_id: str) -> int:
    """Returns what is left of a hold to its grants; gives the number of the entry."""
    account.unhold(hold.currency, hold.lots)
    entry = account.enter(
        EntryKind.RELEASE,
        hold.currency,
        hold.remaining,
        request_id=request_id,
        hold=number,
        resource=hold.resource,
    )
    account.clear_returned(hold.currency, hold.lots)
    return entry


def close(account: Account, number: int, hold: Hold, state: HoldState, keep_us: int) -> Hold:
    """Ends a hold; its record stays for a while, so that late callers learn what became of it."""
    name = account.account_id
    closed = changed(hold, state=state, remaining=0, lots=())
    account.tx.set(HOLDS.key(name, number), encode(closed))
    account.tx.clear(HOLD_EXPIRIES.key(name, hold.expire_us, number))
    forget_s = (account.now_us + keep_us) // 1_000_000 + 1
    account.tx.set(CLOSED_HOLDS.key(forget_s, name, number), b"")
    return closed


def forget_closed(tx: Transaction, *, now_us: int, limit: int) -> int:
    """Removes the records of at most ``limit`` closed holds that were kept long enough."""
    begin, _ = CLOSED_HOLDS.range()
    due = tx.range(begin, CLOSED_HOLDS.key(now_us // 1_000_000), limit=limit)
    for key, _ in due:
        _, account_id, number = CLOSED_HOLDS.parts(key)
        tx.clear(HOLDS.key(account_id, number))
        tx.clear(key)
    return len(due)


def _open_hold(account: Account, hold_id: str) -> tuple[int, Hold]:
    number = hold_number(account.account_id, hold_id)
    stored = None if number is None else account.tx.get(HOLDS.key(account.account_id, number))
    if number is None or stored is None:
        raise HoldNotFoundError
    hold = decode_hold(stored)
    if hold.state != HoldState.OPEN:
        raise HoldNotOpenError.of(HoldState(hold.state).name)
    return number, hold


def _what_is_left(estimate: Metered | None, metered: Metered | None) -> Metered | None:
    if estimate is None or metered is None or metered.meter != estimate.meter:
        return estimate
    return changed(estimate, quantity=max(0, estimate.quantity - metered.quantity))


def _view(number: int, hold: Hold) -> HoldView:
    return HoldView(
        number,
        hold.amount,
        hold.captured,
        hold.remaining,
        hold.state,
        hold.expire_us,
        hold.policy,
    )
