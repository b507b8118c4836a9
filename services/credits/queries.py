"""What can be asked about an account: pure functions of a read transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import NamedTuple

from services.credits.account import DAY_US, load_wallet
from services.credits.entries import checked_entries
from services.credits.errors import AmountOutOfRangeError
from services.credits.grants import recurring
from services.credits.lots import Shelf
from services.credits.records import (
    ENTRIES,
    MAX_AMOUNT,
    USAGE,
    Entry,
    GrantTerms,
    Lot,
    Purse,
    Usage,
    decode_usage,
)
from services.credits.settlement import SettlementDueError
from services.store.pages import Listing, read_page
from services.store.port import ReadTransaction

USAGE_PART = 2000
"""Usage counters that one read takes in: a few years are several reads."""
USAGE_LINES = 10_000
"""Lines of one answer; more are refused."""


class UsagePeriod(IntEnum):
    """As in the contract: into what usage is cut."""

    WHOLE = 0
    DAY = 1
    MONTH = 2


class BalanceView(NamedTuple):
    """An account's credit in a currency, and its unspent grants in spend order."""

    purse: Purse
    lots: tuple[Lot, ...]
    recurring: Mapping[int, GrantTerms]
    """The terms of those that are, or were, refilled; by their numbers."""
    version: int = 0


class EntryPage(NamedTuple):
    """Entries with their numbers, and the token of the next page (empty: there is none)."""

    entries: Sequence[tuple[int, Entry]]
    next_token: str
    version: int = 0


class UsageLine(NamedTuple):
    """What a meter came to; sorts by period, meter, cache result and currency."""

    start_us: int | None
    """When its period begins; None if time was not cut."""
    meter: str
    cache: int
    currency: str
    usage: Usage


class UsageLines(NamedTuple):
    """Sorted lines."""

    lines: Sequence[UsageLine]
    version: int


def require_settled(tx: ReadTransaction, account_id: str, now_us: int) -> None:
    """Raises ``SettlementDueError`` when something of the account is due."""
    if load_wallet(tx, account_id).agenda_us <= now_us:
        raise SettlementDueError


def balance(tx: ReadTransaction, *, account_id: str, currency: str) -> BalanceView:
    """The balance; zeros for what never was."""
    purse = load_wallet(tx, account_id).purses.get(currency, Purse())
    tail = Shelf(account_id, currency).lots(tx) if purse.tail else ()
    unspent = (*purse.head, *tail)
    return BalanceView(purse, unspent, recurring(tx, account_id, unspent))


def entries(
    tx: ReadTransaction, *, account_id: str, size: int, token: str, newest_first: bool
) -> EntryPage:
    """A page of the ledger; raises ``PageTokenInvalidError`` of the store.

    And ``OperationTooLargeError`` when ``size`` entries are more than one read may hold.
    """
    listing = Listing("credits.entries", account_id, "newest" if newest_first else "oldest")
    bounds = ENTRIES.range(account_id)
    page, next_token = read_page(
        tx, listing, bounds, size=size, token=token, newest_first=newest_first
    )
    ascending = reversed(page) if newest_first else page
    found = [(number, entry) for _, number, entry in checked_entries(tx, ascending)]
    return EntryPage(found[::-1] if newest_first else found, next_token)


class UsageTotal:
    """Sums usage counters, part by part, so that a long period is no large read.

    The counters of a day that is over do not change, so the parts fit together.
    """

    def __init__(
        self,
        account_id: str,
        start_us: int | None,
        end_us: int | None,
        period: UsagePeriod = UsagePeriod.WHOLE,
    ) -> None:
        """From the UTC day of ``start_us`` to before that of ``end_us``."""
        self._period = period
        begin, end = USAGE.range(account_id)
        self._begin = begin if start_us is None else USAGE.key(account_id, start_us // DAY_US)
        self._end = end if end_us is None else USAGE.key(account_id, end_us // DAY_US)
        self._sums: dict[tuple[int, str, int, str], Usage] = {}

    def next_part(self, tx: ReadTransaction) -> list[tuple[bytes, bytes]]:
        """What comes next."""
        return tx.range(self._begin, self._end, limit=USAGE_PART)

    def add(self, part: Sequence[tuple[bytes, bytes]]) -> bool:
        """Takes a part in; says whether it was the last. Raises ``AmountOutOfRangeError``."""
        for key, value in part:
            _, day, meter, cache, currency = USAGE.parts(key)
            line = self._first_day(int(day)), str(meter), int(cache), str(currency)
            if line not in self._sums and len(self._sums) >= USAGE_LINES:
                raise AmountOutOfRangeError(
                    f"The usage has more than {USAGE_LINES} lines: ask for less time"
                )
            sums, more = self._sums.get(line, Usage()), decode_usage(key, value)
            quantity = sums.quantity + more.quantity
            if quantity > MAX_AMOUNT:
                raise AmountOutOfRangeError(
                    f"The usage of {line[1]} exceeds 64 bits: ask for less time"
                )
            self._sums[line] = Usage(
                quantity,
                sums.amount + more.amount,
                sums.count + more.count,
                sums.refunded_quantity + more.refunded_quantity,
                sums.refunded_amount + more.refunded_amount,
                sums.shortfall + more.shortfall,
                sums.free + more.free,
            )
        if part:
            self._begin = part[-1][0] + b"\x00"
        return len(part) < USAGE_PART

    def lines(self, version: int) -> UsageLines:
        """The sums."""
        lines = [
            UsageLine(day * DAY_US if self._period else None, meter, cache, currency, usage)
            for (day, meter, cache, currency), usage in sorted(
                self._sums.items(), key=lambda item: item[0]
            )
        ]
        return UsageLines(lines, version)

    def _first_day(self, day: int) -> int:
        """The day since the epoch with which the period of a day begins; 0 if time is not cut."""
        match self._period:
            case UsagePeriod.DAY:
                return day
            case UsagePeriod.MONTH:
                date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
                return day - date.day + 1
            case UsagePeriod.WHOLE:
                return 0
