"""Balances as they change: who watches which account, and what each watcher is told.

A watcher asks for the next change when its reader has taken the one before, and is given the
balance of then: whatever came in between is skipped, so a slow reader costs no memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from services.credits.account import load_wallet
from services.credits.records import Purse
from services.rpc.errors import OverloadedError, ShuttingDownError
from services.store.port import Committed, ReadTransaction

WATCHERS = 500
POLL_S = 0.5


class Crossing(NamedTuple):
    """What is available fell below a threshold, or rose to it or above."""

    threshold: int
    below: bool


class Change(NamedTuple):
    """A balance as of a version, and the thresholds between it and the one told before."""

    purse: Purse
    version: int
    crossings: Sequence[Crossing]


class Watches:
    """The watchers of one process.

    Changes that this process makes wake them (``changed``); those of other processes, and of time,
    are found by looking every ``poll_s`` seconds.
    """

    def __init__(self, *, limit: int = WATCHERS, poll_s: float = POLL_S) -> None:
        """``limit``: watchers at once; beyond it ``OverloadedError``."""
        self._limit = limit
        self._poll_s = poll_s
        self._count = 0
        self._closed = False
        self._by_account: dict[str, set[asyncio.Event]] = {}

    @property
    def count(self) -> int:
        """How many watch."""
        return self._count

    def changed(self, account_ids: Iterable[str]) -> None:
        """Wakes who watches these accounts; costs next to nothing when nobody watches any."""
        if self._by_account:
            for account_id in account_ids:
                for bell in self._by_account.get(account_id, ()):
                    bell.set()

    def close(self) -> None:
        """Ends every watcher, and each that comes later, with ``ShuttingDownError``."""
        self._closed = True
        self.changed(self._by_account)

    async def follow(
        self,
        account_id: str,
        read: Callable[[], Awaitable[Committed[Purse]]],
        thresholds: Sequence[int] = (),
        *,
        crossings_only: bool = False,
    ) -> AsyncGenerator[Change, None]:
        """The balance that ``read`` gives, at once and then whenever it differs from the last told.

        ``crossings_only``: after the first only those with a crossing. Raises ``OverloadedError``,
        ``ShuttingDownError`` and what ``read`` raises. Close it (``aclose``) to free its place.
        """
        with self._place(account_id) as bell:
            told: Purse | None = None
            sides = dict.fromkeys(sorted(thresholds), False)
            while True:
                bell.clear()  # before it reads: what changes after that rings again
                found = await read()
                purse = found.result
                crossings = [
                    Crossing(threshold, purse.available < threshold)
                    for threshold, below in sides.items()
                    if (purse.available < threshold) != below
                ]
                if told is None or crossings or not (crossings_only or _same(purse, told)):
                    told = purse
                    sides.update(crossings)
                    yield Change(purse, found.version, crossings)
                await self._ring(bell)

    @contextmanager
    def _place(self, account_id: str) -> Iterator[asyncio.Event]:
        if self._closed:
            raise ShuttingDownError
        if self._count >= self._limit:
            raise OverloadedError(f"{self._count} balances are being watched")
        bell = asyncio.Event()
        bells = self._by_account.setdefault(account_id, set())
        bells.add(bell)
        self._count += 1
        try:
            yield bell
        finally:
            self._count -= 1
            bells.discard(bell)
            if not bells:
                del self._by_account[account_id]

    async def _ring(self, bell: asyncio.Event) -> None:
        """Waits until there is reason to look again."""
        if not self._closed:
            try:
                async with asyncio.timeout(self._poll_s):
                    await bell.wait()
            except TimeoutError:
                pass  # what others changed rings no bell here
        if self._closed:
            raise ShuttingDownError


def purse_of(tx: ReadTransaction, *, account_id: str, currency: str) -> Purse:
    """An account's credit in a currency; zeros for what never was."""
    return load_wallet(tx, account_id).purses.get(currency, Purse())


def _same(purse: Purse, other: Purse) -> bool:
    """Whether a reader of the balance sees no difference: which grants it is of does not count."""
    return _shown(purse) == _shown(other)


def _shown(purse: Purse) -> tuple[int, ...]:
    return (
        purse.available,
        purse.held,
        purse.granted,
        purse.spent,
        purse.expired,
        purse.voided,
        purse.overdraft_limit,
    )
