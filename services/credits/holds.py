"""Holds: credit that is set aside until it is captured, released, or its time is over.

A hold remembers which grants its credit came from. What is released returns to them; if the time of
a grant is over by then, its credit expires at once. What is captured was spent in time: a grant's
expiry does not touch credit under a hold. A lease is a hold with an owner (see ``leases``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from services.credits import lots
from services.credits.account import Account
from services.credits.debits import Price, priced
from services.credits.errors import (
    AccountFullError,
    HoldNotFoundError,
    HoldNotOpenError,
    LeaseNotOwnedError,
    invalid,
)
from services.credits.names import hold_number
from services.credits.records import (
    CLOSED_HOLDS,
    HOLD_EXPIRIES,
    HOLDS,
    MAX_AMOUNT,
    OVERDRAFT_LOT,
    Answer,
    EntryKind,
    ExcessRule,
    ExpiryPolicy,
    Hold,
    HoldState,
    HoldView,
    Lot,
    Metered,
    decode_hold,
)
from services.credits.returns import Origin, give_back
from services.credits.tariff import Tariff
from services.store.port import Transaction
from services.store.records import changed, encode

MAX_HOLD_LOTS = 1500
"""Grants that one hold takes from; so its record stays below the store's limit."""
MAX_OPEN_HOLDS = 10_000
"""In one account, leases included."""


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
    excess_rule: ExcessRule = ExcessRule.BALANCE


class ExtendHold(NamedTuple):
    """Prolongs a hold."""

    account_id: str
    hold_id: str
    time_to_live_us: int
    price: Price | None
    """What to set aside besides."""
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
    """Sets the price aside, all or nothing; in shadow mode as much of it as there is.

    Raises ``InsufficientCreditError``, ``MeterUnknownError``, ``AmountOutOfRangeError``,
    ``AccountFullError`` (open holds) and ``InvalidArgumentError`` (a currency that is not the
    tariff's, too many grants for one hold).
    """
    price = priced(account, request.price, request.currency, tariff)
    amount = account.payable(price.currency, price.amount, shortfall=price.shadow)
    hold = Hold(
        price.currency,
        amount,
        0,
        amount,
        HoldState.OPEN,
        account.now_us + request.time_to_live_us,
        request.policy,
        request.resource,
        price.metered,
        _within_limit(account.hold(price.currency, amount)),
        excess_rule=request.excess_rule,
        free=price.free,
        allowance=price.allowance,
    )
    return open_hold(account, hold, request.request_id)


def open_hold(account: Account, hold: Hold, request_id: str) -> Answer:
    """Begins a hold whose credit is held already; raises ``AccountFullError``."""
    wallet = account.wallet
    if wallet.open_holds >= MAX_OPEN_HOLDS:
        raise AccountFullError.of("open holds", MAX_OPEN_HOLDS)
    wallet.open_holds += 1
    number = account.enter(
        EntryKind.RESERVE,
        hold.currency,
        hold.amount,
        request_id=request_id,
        hold=wallet.sequence + 1,
        metered=hold.estimate,
        resource=hold.resource,
    )
    store(account, number, hold)
    _schedule(account, number, hold)
    return account.answer(number, hold.amount, hold.currency, view(number, hold))


def extend(account: Account, request: ExtendHold, tariff: Tariff) -> Answer:
    """Prolongs an open hold, and sets the price aside besides, all or nothing.

    The quantity of a price adds to the estimate of a hold that was made with one of the same meter.
    Raises what ``reserve`` raises, ``HoldNotFoundError``, ``HoldNotOpenError`` and
    ``LeaseNotOwnedError``.
    """
    number, hold = open_hold_of(account, request.hold_id)
    amount, metered = 0, None
    if request.price is not None:
        price = priced(account, request.price, hold.currency, tariff)
        metered = price.metered
        amount = account.payable(hold.currency, price.amount, shortfall=price.shadow)
        hold = changed(hold, estimate=_with_more(hold.estimate, metered))
    taken = account.hold(hold.currency, amount)
    hold = _with_credit(hold, _within_limit(merged(hold.lots, taken)), amount)
    hold = prolonged(account, number, hold, request.time_to_live_us)
    store(account, number, hold)
    entry = enter_extension(account, number, hold, amount, request.request_id, metered)
    return account.answer(entry, amount, hold.currency, view(number, hold))


def release(account: Account, request: Release, terms: HoldTerms) -> Answer:
    """Gives a hold back.

    Raises ``HoldNotFoundError``, ``HoldNotOpenError`` and ``LeaseNotOwnedError``.
    """
    number, hold = open_hold_of(account, request.hold_id)
    entry = return_rest(account, number, hold, request.request_id, account.now_us)
    closed = close(account, number, hold, HoldState.RELEASED, terms.keep_us)
    return account.answer(entry, hold.remaining, hold.currency, view(number, closed))


def expire(account: Account, number: int, hold: Hold, keep_us: int, until_us: int) -> None:
    """Does with an open hold what its policy says; ``until_us`` as in ``returns.give_back``."""
    if hold.policy == ExpiryPolicy.DEBIT_ESTIMATE:
        hold = _debit_estimate(account, number, hold)
    else:
        return_rest(account, number, hold, "", until_us)
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


def top_up(account: Account, hold: Hold, target: int) -> tuple[Hold, int]:
    """A hold with as much credit as ``target``, as far as the balance goes and fits in; how much.

    The overdraft limit counts as balance.
    """
    purse = account.purse(hold.currency)
    limit = 0 if account.wallet.shadow else purse.overdraft_limit
    room = MAX_AMOUNT - purse.held - purse.spent
    amount = max(0, min(target - hold.remaining, purse.available + limit, room))
    kept = merged(hold.lots, account.hold(hold.currency, amount))
    for lot in kept[MAX_HOLD_LOTS:]:
        account.own_purse(hold.currency).held -= lot.remaining
        account.put(hold.currency, lot)
        amount -= lot.remaining
    return _with_credit(hold, kept[:MAX_HOLD_LOTS], amount), amount


def prolonged(account: Account, number: int, hold: Hold, time_to_live_us: int) -> Hold:
    """A hold that lives so long from now on; an expiry that is later stays."""
    expire_us = account.now_us + time_to_live_us
    if expire_us <= hold.expire_us:
        return hold
    account.tx.clear(HOLD_EXPIRIES.key(account.account_id, hold.expire_us, number))
    hold = changed(hold, expire_us=expire_us)
    _schedule(account, number, hold)
    return hold


def enter_extension(
    account: Account,
    number: int,
    hold: Hold,
    amount: int,
    request_id: str,
    metered: Metered | None = None,
) -> int:
    """Writes the entry about what was added to a hold; gives its number."""
    return account.enter(
        EntryKind.EXTEND_HOLD,
        hold.currency,
        amount,
        request_id=request_id,
        hold=number,
        metered=metered,
        resource=hold.resource,
    )


def close(account: Account, number: int, hold: Hold, state: HoldState, keep_us: int) -> Hold:
    """Ends a hold; its record stays for a while, so that late callers learn what became of it."""
    name = account.account_id
    closed = changed(hold, state=state, remaining=0, lots=())
    store(account, number, closed)
    account.wallet.open_holds -= 1
    account.tx.clear(HOLD_EXPIRIES.key(name, hold.expire_us, number))
    forget_s = (account.now_us + keep_us) // 1_000_000 + 1
    account.tx.set(CLOSED_HOLDS.key(forget_s, name, number), b"")
    return closed


def store(account: Account, number: int, hold: Hold) -> None:
    """Writes a hold."""
    account.tx.set(HOLDS.key(account.account_id, number), encode(hold))


def forget_closed(tx: Transaction, *, now_us: int, limit: int) -> int:
    """Removes the records of at most ``limit`` closed holds that were kept long enough."""
    begin, _ = CLOSED_HOLDS.range()
    due = tx.range(begin, CLOSED_HOLDS.key(now_us // 1_000_000), limit=limit)
    for key, _ in due:
        _, account_id, number = CLOSED_HOLDS.parts(key)
        tx.clear(HOLDS.key(account_id, number))
        tx.clear(key)
    return len(due)


def known_hold(account: Account, hold_id: str) -> tuple[int, Hold]:
    """A hold or lease in any state, and its number; raises ``HoldNotFoundError``."""
    number = hold_number(account.account_id, hold_id)
    stored = None if number is None else account.tx.get(HOLDS.key(account.account_id, number))
    if number is None or stored is None:
        raise HoldNotFoundError
    return number, decode_hold(stored)


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


def merged(first: Sequence[Lot], more: Sequence[Lot]) -> tuple[Lot, ...]:
    """Lots of both in spend order, those of one place as one; what no grant gave comes last."""
    found: dict[tuple[int, int, int], Lot] = {}
    for lot in (*first, *more):
        place = lots.place(lot)
        before = found[place].remaining if place in found else 0
        found[place] = changed(lot, remaining=before + lot.remaining)
    places = sorted(found, key=lambda place: (place[2] == OVERDRAFT_LOT, place))
    return tuple(found[place] for place in places)


def _within_limit(taken: Sequence[Lot]) -> tuple[Lot, ...]:
    if len(taken) > MAX_HOLD_LOTS:
        rule = f"would take from {len(taken)} grants; a hold takes from {MAX_HOLD_LOTS} at most"
        raise invalid("amount", rule)
    return tuple(taken)


def _with_credit(hold: Hold, credit: tuple[Lot, ...], amount: int) -> Hold:
    """A hold with other lots, which have ``amount`` more."""
    total = min(MAX_AMOUNT, hold.amount + amount)
    return changed(hold, amount=total, remaining=hold.remaining + amount, lots=credit)


def _with_more(estimate: Metered | None, metered: Metered | None) -> Metered | None:
    if estimate is None or metered is None or metered.meter != estimate.meter:
        return estimate
    return changed(estimate, quantity=min(MAX_AMOUNT, estimate.quantity + metered.quantity))


def _schedule(account: Account, number: int, hold: Hold) -> None:
    account.tx.set(HOLD_EXPIRIES.key(account.account_id, hold.expire_us, number), b"")
    account.wallet.holds_us = min(account.wallet.holds_us, hold.expire_us)
    account.expect(hold.expire_us)


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
