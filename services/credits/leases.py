"""Leases: holds with an owner, who spends their credit by itself and settles what it spent.

The credit has left the balance when the lease is opened, so nothing that the owner does overspends
the account. What was not settled when the lease expires is released or debited, like any hold's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.credits.account import Account
from services.credits.captures import Line, capturable, finish, take
from services.credits.debits import DEFAULT_CURRENCY, Price
from services.credits.errors import invalid
from services.credits.holds import HoldTerms, prolonged, store, view
from services.credits.records import MAX_AMOUNT, Answer, ExcessRule, ExpiryPolicy, Hold, HoldState
from services.credits.reservations import enter_extension, open_hold, top_up


class OpenLease(NamedTuple):
    """Sets credit aside for an owner."""

    account_id: str
    currency: str
    """Empty: DEFAULT_CURRENCY."""
    amount: int
    min_amount: int
    """0: all of it."""
    time_to_live_us: int
    owner: str
    policy: ExpiryPolicy
    excess_rule: ExcessRule
    request_id: str
    fingerprint: bytes


class Spending(NamedTuple):
    """What an owner spent, summed up."""

    price: Price
    deliveries: int
    """How many they were."""
    resource: str


class SettleLease(NamedTuple):
    """Settles a lease."""

    account_id: str
    hold_id: str
    owner: str
    spendings: Sequence[Spending]
    target_amount: int
    time_to_live_us: int
    """0: as it was."""
    final: bool
    request_id: str
    fingerprint: bytes


def open_lease(account: Account, request: OpenLease) -> Answer:
    """Sets aside as much as is wanted or there is; in shadow mode even less than the minimum.

    The overdraft limit counts as what there is. Raises ``InsufficientCreditError``,
    ``AccountFullError`` and ``InvalidArgumentError`` (a minimum above what is wanted).
    """
    least = request.min_amount or request.amount
    if least > request.amount:
        raise invalid("min_amount", "must be at most the amount")
    currency = request.currency or DEFAULT_CURRENCY
    nothing = Hold(
        currency,
        0,
        0,
        0,
        HoldState.OPEN,
        account.now_us + request.time_to_live_us,
        request.policy,
        request.owner,  # the ledger says whose it is
        None,
        (),
        excess_rule=request.excess_rule,
        owner=request.owner,
    )
    account.payable(currency, least)
    hold, _ = top_up(account, nothing, request.amount)
    return open_hold(account, hold, request.request_id)


def settle_lease(account: Account, request: SettleLease, terms: HoldTerms) -> Answer:
    """Captures every spending, or none; then prolongs, fills up, or closes the lease.

    Of a lease that has expired, only the spendings are settled, late (see ``captures``). Raises
    what ``capture`` raises.
    """
    number, hold = capturable(account, request.hold_id, request.owner)
    amount = shortfall = 0
    for spending in request.spendings:
        line = Line(spending.price, spending.resource, request.request_id, spending.deliveries)
        taken = take(account, number, hold, line, terms.tariff)
        hold = taken.hold
        amount += taken.amount
        shortfall += taken.shortfall
    if request.final:
        hold = finish(account, number, hold, request.request_id, terms.keep_us)
    else:
        if hold.state == HoldState.OPEN:
            hold = _renewed(account, number, hold, request)
        store(account, number, hold)
    seen, last = view(number, hold), account.wallet.sequence
    amount, shortfall = min(MAX_AMOUNT, amount), min(MAX_AMOUNT, shortfall)
    return account.answer(last, amount, hold.currency, seen, shortfall)


def _renewed(account: Account, number: int, hold: Hold, request: SettleLease) -> Hold:
    hold, added = top_up(account, hold, request.target_amount)
    if added:
        enter_extension(account, number, hold, added, request.request_id)
    if request.time_to_live_us:
        hold = prolonged(account, number, hold, request.time_to_live_us)
    return hold
