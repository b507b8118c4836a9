"""Captures: credit of a hold that is spent; in time, or late, when the hold has expired.

A late capture is settled and not lost. What the hold's expiry debited counts first: as much of the
capture moves nothing. The rest is taken from the balance by the hold's excess rule. A final one
refunds what the expiry debited too much.
"""

from __future__ import annotations

from typing import NamedTuple

from services.credits import lots
from services.credits.account import Account
from services.credits.debits import Price, Priced, count, priced
from services.credits.entries import entry_of
from services.credits.errors import HoldNotOpenError, LeaseNotOwnedError
from services.credits.holds import HoldTerms, close, known_hold, return_rest, store, view
from services.credits.records import (
    MAX_AMOUNT,
    Answer,
    EntryKind,
    ExcessRule,
    Hold,
    HoldState,
    Lot,
    Metered,
)
from services.credits.refunds import Reversal, refunded_of, reverse
from services.credits.tariff import Tariff, cost
from services.store.records import changed


class Capture(NamedTuple):
    """Debits a hold."""

    account_id: str
    hold_id: str
    price: Price
    final: bool
    request_id: str
    fingerprint: bytes


class Line(NamedTuple):
    """One entry's worth of what is captured."""

    price: Price
    resource: str
    request_id: str
    deliveries: int = 0
    """How many a lease's settlement sums up; 0: one."""


class Taken(NamedTuple):
    """What became of a line."""

    hold: Hold
    """After it; not stored yet."""
    entry: int
    amount: int
    """What it took, or what the expiry had taken for it."""
    shortfall: int


class _Left(NamedTuple):
    """What no capture has accounted for yet."""

    amount: int
    quantity: int


def capture(account: Account, request: Capture, terms: HoldTerms) -> Answer:
    """Takes the price out of a hold, and what exceeds it as the hold's excess rule says.

    Raises ``HoldNotFoundError``, ``HoldNotOpenError``, ``LeaseNotOwnedError``,
    ``InsufficientCreditError``, ``MeterUnknownError``, ``AmountOutOfRangeError`` and
    ``InvalidArgumentError`` (a meter whose price is not in the hold's currency).
    """
    number, hold = capturable(account, request.hold_id, "")
    line = Line(request.price, hold.resource, request.request_id)
    taken = take(account, number, hold, line, terms.tariff)
    hold = taken.hold
    if request.final:
        hold = finish(account, number, hold, request.request_id, terms.keep_us)
    else:
        store(account, number, hold)
    seen = view(number, hold)
    return account.answer(taken.entry, taken.amount, hold.currency, seen, taken.shortfall)


def capturable(account: Account, hold_id: str, owner: str) -> tuple[int, Hold]:
    """An owner's hold that is open or has expired, and its number; no owner: a hold, no lease.

    Raises ``HoldNotFoundError``, ``LeaseNotOwnedError`` and ``HoldNotOpenError``.
    """
    number, hold = known_hold(account, hold_id)
    if hold.owner != owner:
        raise LeaseNotOwnedError
    if hold.state not in {HoldState.OPEN, HoldState.EXPIRED}:
        raise HoldNotOpenError.of(HoldState(hold.state).name)
    return number, hold


def take(account: Account, number: int, hold: Hold, line: Line, tariff: Tariff) -> Taken:
    """Captures a line, all or nothing unless the hold or the meter says otherwise."""
    late = hold.state == HoldState.EXPIRED
    left = _debited(account, hold) if late else _Left(hold.remaining, 0)
    deliveries = line.deliveries or 1
    price = priced(account, line.price, hold.currency, tariff, deliveries)
    if late:
        price = _without_what_was_free(price, hold, tariff, deliveries)
    within = min(price.amount, left.amount)
    paid = _payable(account, hold, price, price.amount - within)
    shortfall = price.amount - within - paid
    first: list[Lot] = []
    if late:
        hold, price = _accounted(hold, price, within, left)
        moved = paid
    else:
        first, rest = lots.split(hold.lots, within)
        account.spend_held(hold.currency, within)
        hold = changed(_without_estimate(hold, price), lots=tuple(rest))
        hold = changed(hold, remaining=hold.remaining - within)
        moved = within + paid
    count(account, price, moved, shortfall, deliveries)
    credit = [*first, *account.spend(hold.currency, paid)]
    entry = _enter(account, number, line, price._replace(amount=moved), shortfall, credit)
    hold = changed(
        hold,
        captured=min(MAX_AMOUNT, hold.captured + moved),
        shortfall=min(MAX_AMOUNT, hold.shortfall + shortfall),
    )
    return Taken(hold, entry, within + paid, shortfall)


def finish(account: Account, number: int, hold: Hold, request_id: str, keep_us: int) -> Hold:
    """Gives back what is left of a hold, or of what its expiry debited, and closes it."""
    if hold.state == HoldState.OPEN:
        if hold.remaining:
            return_rest(account, number, hold, request_id, account.now_us)
        return close(account, number, hold, HoldState.CAPTURED, keep_us)
    left = _debited(account, hold)
    if left.amount or left.quantity:
        entry = entry_of(account.tx, account.account_id, hold.debited_entry)
        if entry is None:
            raise LookupError(f"entry {hold.debited_entry} of {account.account_id} is gone")
        before = refunded_of(account, hold.debited_entry)
        reversal = Reversal(hold.debited_entry, entry, before, left.amount, left.quantity)
        reverse(account, reversal, request_id, resource=hold.resource, hold=number)
    captured = hold.captured - left.amount
    hold = changed(hold, state=HoldState.CAPTURED, captured=captured, debited=0)
    store(account, number, hold)
    return hold


def _payable(account: Account, hold: Hold, price: Priced, above: int) -> int:
    rule = hold.excess_rule
    return account.payable(
        hold.currency,
        above,
        overdraft=rule == ExcessRule.OVERDRAFT,
        shortfall=price.shadow or rule == ExcessRule.SHORTFALL,
    )


def _enter(
    account: Account, number: int, line: Line, price: Priced, shortfall: int, credit: list[Lot]
) -> int:
    grant, sources = lots.sources(credit)
    return account.enter(
        EntryKind.CAPTURE,
        price.currency,
        price.amount,
        request_id=line.request_id,
        hold=number,
        grant=grant,
        metered=price.metered,
        resource=line.resource,
        shortfall=shortfall,
        free=price.free,
        sources=sources,
        count=line.deliveries,
    )


def _without_estimate(hold: Hold, price: Priced) -> Hold:
    """An open hold whose estimate is less by what is captured."""
    estimate, metered = hold.estimate, price.metered
    if estimate is None or metered is None or metered.meter != estimate.meter:
        return hold
    quantity = max(0, estimate.quantity - metered.quantity)
    free = max(0, hold.free - price.free)
    return changed(hold, estimate=changed(estimate, quantity=quantity), free=free)


def _debited(account: Account, hold: Hold) -> _Left:
    """What the expiry debited and metered, without what was captured or refunded since."""
    if not hold.debited_entry:
        return _Left(0, 0)
    refunded = refunded_of(account, hold.debited_entry)
    estimate = hold.debited_estimate
    quantity = 0 if estimate is None else max(0, estimate.quantity - refunded.quantity)
    return _Left(max(0, hold.debited - refunded.amount), quantity)


def _without_what_was_free(price: Priced, hold: Hold, tariff: Tariff, deliveries: int) -> Priced:
    """A late price to which the allowance counts that the estimate used up."""
    if price.metered is None or not hold.free or not _is_of_estimate(price.metered, hold):
        return price
    free = min(price.metered.quantity, price.free + hold.free)
    amount = cost(tariff.rates(price.metered.meter), price.metered, free, deliveries)
    return price._replace(amount=amount, free=max(0, free - hold.free))


def _accounted(hold: Hold, price: Priced, within: int, left: _Left) -> tuple[Hold, Priced]:
    """An expired hold of whose debit ``within`` was captured, and what is metered besides."""
    covered = left.quantity * within // left.amount if left.amount else 0
    if price.metered is not None and _is_of_estimate(price.metered, hold):
        covered = min(price.metered.quantity, left.quantity)
        beyond = price.metered.quantity - covered
        metered = changed(price.metered, quantity=beyond)
        price = price._replace(metered=metered, free=min(price.free, beyond))
    hold = changed(hold, debited=hold.debited - within, free=max(0, hold.free - covered))
    if covered and hold.debited_estimate is not None:
        quantity = hold.debited_estimate.quantity - covered
        hold = changed(hold, debited_estimate=changed(hold.debited_estimate, quantity=quantity))
    return hold, price


def _is_of_estimate(metered: Metered, hold: Hold) -> bool:
    return hold.debited_estimate is not None and hold.debited_estimate.meter == metered.meter
