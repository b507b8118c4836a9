"""The keeper of one lease: opens it, settles what is spent of it, fills it up, and closes it."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass

from services.credits.errors import HoldNotFoundError, HoldNotOpenError
from services.edge.credit.lease_books import Lease
from services.edge.credit.lease_calls import LeaseCalls, Leased
from services.edge.credit.lease_journal import LeaseTerms, Settlement, Slot
from services.edge.credit.tariff import Rates
from services.process.logs import get_logger
from services.rpc.errors import ServiceError

log = get_logger(__name__)

GROWTH = 4
"""How much larger a lease becomes of which half is gone before it was due."""
SHARE = 8
"""A lease has at most this part of what the account can spend; others want some of it too."""
# Within the request ids' record of 24 hours; a settlement that is older may have been done.
_REPEATABLE_S = 22 * 3600


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """How this edge leases."""

    credits: int
    """The largest lease; 0: none."""
    live_s: float
    settle_s: float
    idle_s: float
    transfer_s: float
    slowest_bytes_per_s: float
    expiry_policy: int
    """What becomes of a lease whose edge never comes back."""
    debit_unreported: bool
    """Whether guests' deliveries that a dead process left unreported are debited."""


class Keeper:
    """Looks after one lease, in a task of its own.

    Args:
        calls: the credit service.
        policy: how this edge leases.
        slot: where the lease is noted.
        terms: what it is asked for with.
        rates: the meter's.
        unlimited: in shadow mode nothing is refused.
    """

    def __init__(
        self,
        calls: LeaseCalls,
        policy: LeasePolicy,
        slot: Slot,
        terms: LeaseTerms,
        rates: Rates,
        *,
        unlimited: bool,
    ) -> None:
        self._calls = calls
        self._policy = policy
        self._slot = slot
        self.terms = terms
        self._attention = asyncio.Event()
        self.lease = Lease(
            slot,
            rates,
            self._attention.set,
            transfer_s=policy.transfer_s,
            s_per_byte=1 / policy.slowest_bytes_per_s,
            unlimited=unlimited,
        )
        self.ended = asyncio.Event()
        """Nothing of the lease is left to settle."""
        self._size = terms.amount
        self._asked: asyncio.Future[None] | None = None
        self._wanted = 0
        self._renew_at = 0.0
        self._is_leaving = False

    async def open(self) -> bool:
        """Opens the lease; False when there is none to be had.

        When cancelled, the journal has the next process undo it.
        """
        self._slot.ask(self.terms)
        sent = time.monotonic()
        try:
            leased = await self._calls.open(self.terms)
        except ServiceError as error:
            log.info("lease_not_opened", reason=error.reason_name())
            self._end()
            return False
        self._slot.open(leased.hold_id)
        self.lease.begin(leased.remaining, leased.balance)
        self._lives_from(sent, self.terms.live_ms / 1000)
        return True

    async def keep(self) -> None:
        """Settles, fills up, prolongs, until the lease is closed or the process leaves it."""
        loop = asyncio.get_running_loop()
        leaving = False
        while not self.ended.is_set() and not leaving:
            tick = loop.call_later(self._policy.settle_s, self._attention.set)
            await self._attention.wait()
            tick.cancel()
            self._attention.clear()
            leaving = self._is_leaving
            await self._look()

    async def ask(self, amount: int) -> None:
        """Has the lease filled up by so much more, as far as the balance goes, and waits for it."""
        if self.ended.is_set():
            return
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
        self._wanted += amount
        self._attention.set()
        await asyncio.shield(self._asked)

    def leave(self) -> None:
        """The process ends: closes the lease, or leaves to the next one what it cannot."""
        self._is_leaving = True
        self.lease.retire()

    async def _look(self) -> None:
        """Does what is due."""
        lease, now = self.lease, time.monotonic()
        idle = not lease.in_flight and now - lease.used_at >= self._policy.idle_s
        if idle or now >= lease.spend_until:
            lease.is_retired = True
        if lease.is_retired and not lease.in_flight:
            await self._settle(final=True)
        elif lease.has_spent or self._asked is not None or self._is_low() or self._is_ending(now):
            await self._settle(final=False)

    def _is_ending(self, now: float) -> bool:
        """Whether it is time to prolong the lease, for what is under way at least."""
        lasts = self.lease.is_retired or not self.lease.unlimited
        return lasts and now >= self._renew_at

    def _is_low(self) -> bool:
        """Whether there is less in the lease than there should be, and more to be had."""
        lease = self.lease
        return not lease.is_retired and 2 * lease.left < self._headroom() and lease.balance > 0

    def _headroom(self) -> int:
        """What the lease should have besides what is under way."""
        lease = self.lease
        return 0 if lease.is_retired else max(0, min(self._size, lease.available // SHARE))

    async def _settle(self, *, final: bool) -> None:
        lease = self.lease
        if lease.low < 0:  # half of it was gone before its time
            self._size = min(GROWTH * self._size, self._policy.credits)
        asked, self._asked = self._asked, None
        headroom, self._wanted = self._headroom() + self._wanted, 0
        # In shadow mode a lease ends in time, so that the account is asked about again.
        lasts = final or (lease.unlimited and not lease.is_retired)
        live_s = 0.0 if lasts else self._policy.live_s
        settlement = lease.freeze(headroom, round(live_s * 1000), final=final)
        sent = time.monotonic()
        try:
            leased = await settled(self._calls, self._slot, self.terms, settlement)
            if leased is None:
                lease.answered(settlement, 0, lease.balance)
            else:
                lease.answered(settlement, leased.remaining, leased.balance)
            if leased is None or not leased.is_open:
                lease.is_retired = True
                self._renew_at = math.inf
            elif live_s:
                self._lives_from(sent, live_s)
        finally:
            if asked is not None and not asked.done():
                asked.set_result(None)
        if final:
            self._end()

    def _lives_from(self, sent: float, live_s: float) -> None:
        """The lease lives at least so long from when that was asked for."""
        self.lease.spend_until = sent + live_s - min(10.0, live_s / 4)
        self.lease.cut_at = sent + live_s - min(3.0, live_s / 8)
        self._renew_at = sent + live_s / 3

    def _end(self) -> None:
        self.ended.set()
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(None)


async def settled(
    calls: LeaseCalls, slot: Slot, terms: LeaseTerms, settlement: Settlement
) -> Leased | None:
    """Does a settlement, once and for all; None when the lease is no more.

    What the lease cannot pay any more is debited from the balance. What cannot be paid at all is in
    the log. When cancelled, the journal keeps what is to be settled.
    """
    try:
        return await calls.settle(terms, slot.hold_id, settlement)
    except (HoldNotFoundError, HoldNotOpenError) as error:
        done = settlement.final and error.metadata.get("state") == "CAPTURED"
        if done or time.time() - slot.frozen_at > _REPEATABLE_S:
            _log_unpaid(terms, settlement, error)
            return None
        log.warning("lease_gone", account_id=terms.account_id, hold_id=slot.hold_id)
        try:
            await calls.debit(terms, settlement)
        except ServiceError as refused:
            _log_unpaid(terms, settlement, refused)
    except ServiceError as error:
        _log_unpaid(terms, settlement, error)
    return None


def _log_unpaid(terms: LeaseTerms, settlement: Settlement, error: ServiceError) -> None:
    log.error(
        "lease_unpaid",
        account_id=terms.account_id,
        meter=terms.meter,
        quantities=[spent.quantity for spent in settlement.lines],
        reason=error.reason_name(),
    )
