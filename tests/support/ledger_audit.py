"""Holds an account's ledger, balance and usage against each other, as any caller could.

``audit_account`` reads everything by the contract's own RPCs, replays the ledger entry by entry,
and raises ``AssertionError`` that names the first difference.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tollmesh.credits.v1 import credits_pb2 as pb

from tests.support.deadline import DEADLINE_S

_PAGE = 500


class Credits(Protocol):
    """What a ``CreditServiceStub`` on an asynchronous channel has."""

    @property
    def GetBalance(self) -> Callable[..., Awaitable[pb.GetBalanceResponse]]: ...  # noqa: N802 (the contract's name)
    @property
    def ListEntries(self) -> Callable[..., Awaitable[pb.ListEntriesResponse]]: ...  # noqa: N802 (the contract's name)
    @property
    def GetUsage(self) -> Callable[..., Awaitable[pb.GetUsageResponse]]: ...  # noqa: N802 (the contract's name)


@dataclass
class Audit:
    """An account whose books are in order."""

    account_id: str
    entries: list[pb.Entry]
    balances: dict[str, pb.GetBalanceResponse]
    usage: list[pb.MeterUsage]

    @property
    def balance(self) -> pb.Balance:
        """In the currency ``credit``."""
        return self.balances["credit"].balance

    @property
    def captures(self) -> list[pb.Entry]:
        return self.of_kind(pb.ENTRY_KIND_CAPTURE)

    @property
    def debits(self) -> list[pb.Entry]:
        return self.of_kind(pb.ENTRY_KIND_DEBIT)

    def of_kind(self, kind: pb.EntryKind.ValueType) -> list[pb.Entry]:
        return [entry for entry in self.entries if entry.kind == kind]

    def usage_quantity(self, meter: str) -> int:
        """Units of a meter, hits and misses together."""
        return sum(line.quantity for line in self.usage if line.meter == meter)


async def audit_account(
    credits: Credits,
    account_id: str,
    *,
    until_settled: bool = False,
    timeout_s: float = DEADLINE_S,
) -> Audit:
    """Checks an account's books. ``until_settled`` waits until nothing is held any more.

    Waits for a moment in which nothing happens to the account between the reads; fails when there
    is none within ``timeout_s``.
    """
    async with asyncio.timeout(timeout_s):
        while True:
            audit = await _read(credits, account_id)
            if audit is not None and not (until_settled and _held(audit)):
                break
            await asyncio.sleep(0.05)
    _check(audit)
    newest_first = await _entries(credits, account_id, newest_first=True)
    ids = [entry.entry_id for entry in audit.entries]
    _same([entry.entry_id for entry in reversed(newest_first)][: len(ids)], ids, "newest first")
    return audit


async def _read(credits: Credits, account_id: str) -> Audit | None:
    """Everything about an account; None when it changed in the meantime."""
    before = await _newest(credits, account_id)
    entries = await _entries(credits, account_id, newest_first=False)
    balances = {}
    for currency in {"credit", *(entry.currency for entry in entries)}:
        request = pb.GetBalanceRequest(account_id=account_id, currency=currency)
        balances[currency] = await credits.GetBalance(request)
    usage = await credits.GetUsage(pb.GetUsageRequest(account_id=account_id))
    if await _newest(credits, account_id) != before:
        return None
    return Audit(account_id, entries, balances, list(usage.usage))


async def _newest(credits: Credits, account_id: str) -> str:
    request = pb.ListEntriesRequest(account_id=account_id, page_size=1, newest_first=True)
    page = await credits.ListEntries(request)
    return page.entries[0].entry_id if page.entries else ""


async def _entries(credits: Credits, account_id: str, *, newest_first: bool) -> list[pb.Entry]:
    found: list[pb.Entry] = []
    token = ""
    while True:
        request = pb.ListEntriesRequest(
            account_id=account_id, page_size=_PAGE, page_token=token, newest_first=newest_first
        )
        page = await credits.ListEntries(request)
        found.extend(page.entries)
        token = page.next_page_token
        if not token:
            return found


def _held(audit: Audit) -> bool:
    return any(balance.balance.held for balance in audit.balances.values())


@dataclass
class _Purse:
    """A currency's credit as the entries so far make it."""

    granted: int = 0
    available: int = 0
    held: int = 0
    spent: int = 0
    expired: int = 0
    voided: int = 0


@dataclass
class _Replay:
    """The account as the entries so far make it."""

    purses: dict[str, _Purse] = field(default_factory=lambda: defaultdict(_Purse))
    holds: dict[str, int] = field(default_factory=dict)
    refundable: dict[str, int] = field(default_factory=dict)
    """What of each debit and capture was not refunded."""
    usage: dict[tuple[str, int, str], Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter)
    )

    def apply(self, entry: pb.Entry) -> None:
        purse, amount = self.purses[entry.currency], entry.amount
        match entry.kind:
            case pb.ENTRY_KIND_GRANT | pb.ENTRY_KIND_REFILL_GRANT:
                purse.granted += amount
                purse.available += amount
            case pb.ENTRY_KIND_DEBIT:
                purse.available -= amount
                purse.spent += amount
                self.refundable[entry.entry_id] = amount
            case pb.ENTRY_KIND_EXPIRE_GRANT:
                purse.available -= amount
                purse.expired += amount
            case pb.ENTRY_KIND_VOID_GRANT:
                purse.available -= amount
                purse.voided += amount
            case pb.ENTRY_KIND_REFUND:
                self.refundable[entry.refunded_entry_id] -= amount
                assert self.refundable[entry.refunded_entry_id] >= 0, "refunded more than it took"
                purse.spent -= amount
                purse.available += amount
            case pb.ENTRY_KIND_SET_TERMS:
                _same(amount, 0, "what terms move")
            case _:
                self._apply_to_hold(entry, purse)
        if entry.HasField("metered"):
            self._meter(entry)

    def _apply_to_hold(self, entry: pb.Entry, purse: _Purse) -> None:
        amount, hold_id = entry.amount, entry.hold_id
        match entry.kind:
            case pb.ENTRY_KIND_RESERVE | pb.ENTRY_KIND_EXTEND_HOLD:
                is_new = hold_id not in self.holds
                assert is_new == (entry.kind == pb.ENTRY_KIND_RESERVE), f"made twice: {hold_id}"
                self.holds[hold_id] = self.holds.get(hold_id, 0) + amount
                purse.available -= amount
                purse.held += amount
            case pb.ENTRY_KIND_CAPTURE:
                from_hold = min(amount, self.holds[hold_id])
                self.holds[hold_id] -= from_hold
                purse.held -= from_hold
                purse.available -= amount - from_hold
                purse.spent += amount
                self.refundable[entry.entry_id] = amount
            case pb.ENTRY_KIND_RELEASE:
                _same(amount, self.holds[hold_id], f"all that is left of {hold_id}")
                self.holds[hold_id] = 0
                purse.held -= amount
                purse.available += amount
            case kind:
                raise AssertionError(f"an entry of kind {kind}")

    def _meter(self, entry: pb.Entry) -> None:
        metered = entry.metered
        key = metered.meter, int(metered.cache_result), entry.currency
        if entry.kind in {pb.ENTRY_KIND_DEBIT, pb.ENTRY_KIND_CAPTURE}:
            self.usage[key].update(
                quantity=metered.quantity,
                amount=entry.amount,
                count=entry.count or 1,
                shortfall=entry.shortfall,
                free_quantity=entry.free_quantity,
            )
        elif entry.kind == pb.ENTRY_KIND_REFUND:
            self.usage[key].update(refunded_quantity=metered.quantity, refunded_amount=entry.amount)


def _check(audit: Audit) -> None:
    replay, last = _Replay(), ""
    for entry in audit.entries:
        where = f"{audit.account_id}, entry {entry.entry_id}"
        assert entry.entry_id > last, f"{where}: behind {last}"
        _same(entry.account_id, audit.account_id, f"{where}: account")
        assert entry.amount >= 0, f"{where}: a negative amount"
        replay.apply(entry)
        purse, last = replay.purses[entry.currency], entry.entry_id
        _same(entry.available_after, purse.available, f"{where}: available")
        _same(entry.held_after, purse.held, f"{where}: held")
        owes = audit.of_kind(pb.ENTRY_KIND_SET_TERMS)
        assert purse.available >= 0 or owes, f"{where}: available below zero"
        assert purse.held >= 0, f"{where}: held below zero"
    _check_requests(audit)
    grants = audit.of_kind(pb.ENTRY_KIND_GRANT)
    ages = {entry.grant_id: age for age, entry in enumerate(grants)}
    for currency, response in audit.balances.items():
        _check_balance(f"{audit.account_id}, {currency}", response, replay.purses[currency], ages)
    _check_usage(audit, replay)


_TOGETHER = (
    {pb.ENTRY_KIND_CAPTURE, pb.ENTRY_KIND_RELEASE},
    {pb.ENTRY_KIND_CAPTURE, pb.ENTRY_KIND_REFUND},
    {pb.ENTRY_KIND_CAPTURE, pb.ENTRY_KIND_EXTEND_HOLD},
)
"""What one request may make: a final capture, a late one, and a settlement that tops up."""


def _check_requests(audit: Audit) -> None:
    """No request moved credit twice; only a lease's settlement captures several times."""
    times = Counter((entry.request_id, entry.kind) for entry in audit.entries if entry.request_id)
    settlements = {entry.request_id for entry in audit.entries if entry.count}
    kinds: dict[str, set[int]] = defaultdict(set)
    for (request_id, kind), count in times.items():
        once = count == 1 or (kind == pb.ENTRY_KIND_CAPTURE and request_id in settlements)
        assert once, f"{audit.account_id}: request {request_id} was applied {count} times"
        kinds[request_id].add(kind)
    for request_id, found in kinds.items():
        known = len(found) == 1 or found in _TOGETHER
        assert known, f"request {request_id} made entries {found}"


def _check_balance(
    where: str, response: pb.GetBalanceResponse, purse: _Purse, ages: dict[str, int]
) -> None:
    balance = response.balance
    for name in ("granted", "available", "held", "spent", "expired", "voided"):
        _same(getattr(balance, name), getattr(purse, name), f"{where}: {name}")
    parts = balance.available + balance.held + balance.spent + balance.expired + balance.voided
    _same(parts, balance.granted, f"{where}: available + held + spent + expired + voided")
    remaining = sum(grant.remaining for grant in response.grants)
    _same(remaining, max(0, balance.available), f"{where}: what remains of the grants")
    places = [
        (
            not grant.HasField("expire_time"),
            grant.expire_time.ToNanoseconds(),
            grant.priority,
            ages.get(grant.grant_id, -1),
        )
        for grant in response.grants
    ]
    _same(places, sorted(places), f"{where}: the order of the grants")


_COUNTERS = (
    "quantity",
    "amount",
    "count",
    "refunded_quantity",
    "refunded_amount",
    "shortfall",
    "free_quantity",
)


def _check_usage(audit: Audit, replay: _Replay) -> None:
    reported = {
        (line.meter, int(line.cache_result), line.currency): [
            getattr(line, name) for name in _COUNTERS
        ]
        for line in audit.usage
    }
    replayed = {key: [line[name] for name in _COUNTERS] for key, line in replay.usage.items()}
    _same(len(reported), len(audit.usage), f"{audit.account_id}: lines of usage")
    for key in sorted({*reported, *replayed}):
        _same(reported.get(key), replayed.get(key), f"{audit.account_id}: usage of {key}")


def _same(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{what}: {_short(found)} instead of {_short(expected)}")


def _short(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 8:
        return f"{list(value[:8])}..."
    return repr(value)
