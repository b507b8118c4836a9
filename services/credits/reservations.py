"""Reservations: credit that is set aside under a hold, at its beginning and later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.credits import lots
from services.credits.account import Account
from services.credits.debits import Price, Priced, priced
from services.credits.errors import AccountFullError, invalid
from services.credits.holds import open_hold_of, prolonged, schedule, store, view
from services.credits.records import (
    MAX_AMOUNT,
    OVERDRAFT_LOT,
    Answer,
    EntryKind,
    ExcessRule,
    ExpiryPolicy,
    Hold,
    HoldState,
    Lot,
    Metered,
)
from services.credits.tariff import Tariff, cost
from services.store.records import changed

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
    account.count_holds(1)
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
    schedule(account, number, hold)
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
        hold, price = _with_more(account, hold, price, tariff)
        metered = price.metered
        amount = account.payable(hold.currency, price.amount, shortfall=price.shadow)
    taken = account.hold(hold.currency, amount)
    hold = _with_credit(hold, _within_limit(_merged(hold.lots, taken)), amount)
    hold = prolonged(account, number, hold, request.time_to_live_us)
    store(account, number, hold)
    entry = enter_extension(account, number, hold, amount, request.request_id, metered)
    return account.answer(entry, amount, hold.currency, view(number, hold))


def top_up(account: Account, hold: Hold, target: int) -> tuple[Hold, int]:
    """A hold with as much credit as ``target``, as far as the balance goes and fits in; how much.

    The overdraft limit counts as balance.
    """
    purse = account.purse(hold.currency)
    limit = 0 if account.wallet.shadow else purse.overdraft_limit
    room = MAX_AMOUNT - purse.held - purse.spent
    amount = max(0, min(target - hold.remaining, purse.available + limit, room))
    kept = _merged(hold.lots, account.hold(hold.currency, amount))
    for lot in kept[MAX_HOLD_LOTS:]:
        account.own_purse(hold.currency).held -= lot.remaining
        account.put(hold.currency, lot)
        amount -= lot.remaining
    return _with_credit(hold, kept[:MAX_HOLD_LOTS], amount), amount


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


def _merged(first: Sequence[Lot], more: Sequence[Lot]) -> tuple[Lot, ...]:
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


def _with_more(account: Account, hold: Hold, price: Priced, tariff: Tariff) -> tuple[Hold, Priced]:
    """A hold whose estimate has a price's quantity besides, if it is of the same meter.

    And the price of that quantity when what is free of the estimate is used up first.
    """
    estimate, more = hold.estimate, price.metered
    if estimate is None or more is None or more.meter != estimate.meter:
        return hold, price
    quantity = min(MAX_AMOUNT, estimate.quantity + more.quantity)
    if price.free:
        whole = priced(account, changed(more, quantity=quantity), hold.currency, tariff)
        free = min(price.free, max(0, whole.free - hold.free))
        amount = cost(tariff.rates(more.meter), more, free)
        price = price._replace(amount=amount, free=free)
    estimate = changed(estimate, quantity=quantity)
    free = hold.free + price.free
    return changed(hold, estimate=estimate, free=free, allowance=price.allowance), price
