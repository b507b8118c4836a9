"""Applies what time does to accounts that nobody touches, and removes what was kept long enough.

So balances and ledgers are right without traffic. Any number of processes may sweep at once.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import NoReturn

from services.credits import holds
from services.credits.ledger import Clock, Ledger
from services.credits.records import AGENDA
from services.process.clock import JumpMeter
from services.process.logs import get_logger
from services.store.errors import StoreError
from services.store.port import Operation, Store
from services.store.records import is_intact
from services.store.retention import Retention

ACCOUNTS_AT_ONCE = 50
HOLDS_AT_ONCE = 500
"""Closed holds that one operation forgets."""

JUMP_S = 2.0
"""A jump of the wall clock that is worth a line of the log."""

_log = get_logger(__name__)


class Sweeper:
    """Looks at what is due."""

    def __init__(
        self, store: Store, ledger: Ledger, now_us: Clock, retention: Retention | None = None
    ) -> None:
        """``retention``: by which closed holds are kept; else by ``now_us``."""
        self._retention = retention
        self._store = store
        self._ledger = ledger
        self._now_us = now_us

    async def run(self, every_s: float) -> NoReturn:
        """Sweeps, then rests for ``every_s`` seconds, until it is cancelled."""
        meter = JumpMeter(self._now_us)
        self._look_at_clock()
        while True:
            jumped_s = meter.jumped_s()
            if abs(jumped_s) >= JUMP_S:
                _log.warning("clock_jumped", seconds=round(jumped_s, 1))
            try:
                await self.sweep()
            except StoreError as error:
                report(error)
            await asyncio.sleep(every_s)

    def _look_at_clock(self) -> None:
        """Says so when the wall clock is behind what the store has seen: it must be wrong."""
        if self._retention is not None:
            behind_s = (self._retention.past_us - self._now_us()) / 1_000_000
            if behind_s >= JUMP_S:
                _log.warning("clock_behind", seconds=round(behind_s, 1))

    async def sweep(self) -> None:
        """Settles every account of which something is due, and forgets old holds."""
        now_us = self._now_us()
        begin, _ = AGENDA.range()
        due = await self._due(begin, now_us)
        while due:
            async with asyncio.TaskGroup() as accounts:
                for key, value in due:
                    if is_intact(key, value):
                        accounts.create_task(self._settle(str(AGENDA.parts(key)[1])))
                    else:
                        _log.error("agenda_damaged", key=repr(key))
            due = await self._due(due[-1][0] + b"\x00", now_us)
        retention = self._retention
        kept_us = now_us if retention is None else retention.past_us
        forget = Operation(partial(holds.forget_closed, now_us=kept_us, limit=HOLDS_AT_ONCE))
        while (await self._store.commit(forget)).result == HOLDS_AT_ONCE:
            pass

    async def _due(self, begin: bytes, now_us: int) -> list[tuple[bytes, bytes]]:
        end = AGENDA.key(now_us + 1)
        return (
            await self._store.read(lambda tx: tx.range(begin, end, limit=ACCOUNTS_AT_ONCE))
        ).result

    async def _settle(self, account_id: str) -> None:
        try:
            await self._ledger.settle(account_id)
        except Exception as error:  # noqa: BLE001 (one account must not keep others from their turn)
            _log.error("settlement_failed", account_id=account_id, error=repr(error))


def report(error: StoreError) -> None:
    """Says that a sweep could not be finished; the next one tries again."""
    _log.warning("sweep_failed", error=repr(error))
