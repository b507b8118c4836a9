"""The leases of an edge: which accounts have one, and who looks after it.

An account gets no lease at its first request: that reserves, and learns what is available. When it
asks again soon, a lease is opened in the background, and what it covers needs no round trip. A
lease has at most an eighth of what its account can spend, and is closed when nobody asks any more:
credit under it is for nobody else to spend.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

from services.credits.errors import InsufficientCreditError
from services.edge.background import ended, start
from services.edge.credit.holds import Usage
from services.edge.credit.lease_books import Lease, LeasePayment
from services.edge.credit.lease_calls import LeaseCalls
from services.edge.credit.lease_journal import LeaseJournal, LeaseTerms, Slot
from services.edge.credit.lease_keeper import SHARE, Keeper, LeasePolicy, settled
from services.edge.credit.ledger import Reserved
from services.edge.credit.tariff import Rates, Tariff
from services.process.logs import get_logger
from services.rpc.errors import ServiceError

log = get_logger(__name__)

AGAIN_S = 10.0
"""Who asks twice within this time gets a lease."""
_FEW, _MANY = 4, 256
"""How many deliveries like the one that it was opened for a lease covers at least; at first."""
_ROOM_S = 3.0
_REMEMBERED = 10_000
_SHADOW_S = 30.0
"""An account is asked so often whether it is still in shadow mode."""

Key = tuple[str, str]
"""An account and a meter."""


class Leases:
    """Spends credit of accounts without asking.

    Args:
        calls: the credit service.
        journal: where leases are noted.
        owner: this edge's name; the same after a restart.
        policy: how this edge leases.
    """

    def __init__(
        self,
        calls: LeaseCalls,
        journal: LeaseJournal,
        owner: str,
        policy: LeasePolicy,
    ) -> None:
        self._calls = calls
        self._journal = journal
        self._tariff = Tariff(calls.tariff, self._price_changed)
        self._owner = owner
        self._policy = policy
        self._by_account: dict[str, dict[str, Lease]] = {}
        self._keepers: dict[Lease, Keeper] = {}
        self._opening: set[Key] = set()
        self._asked_at: OrderedDict[Key, float] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._asking: asyncio.Task[None] | None = None

    def start(self) -> int:
        """Begins to learn the tariff, and to settle what an earlier process left; how many leases.

        Both go on in the background, however long the credit service cannot be reached.
        """
        if self._policy.credits:
            self._asking = start(self._tariff.keep_renewing())
        left = self._journal.left()
        for slot in left:
            self._start(self._settle_left(slot))
        return len(left)

    def take(self, usage: Usage, *, guest: bool) -> LeasePayment | None:
        """A payment out of the account's lease; None when that does not cover it. No I/O."""
        leases = self._by_account.get(usage.account_id)
        lease = None if leases is None else leases.get(usage.meter)
        if lease is None:
            return None
        return lease.take(usage.quantity, usage.cache_result, guest=guest)

    def reserved(self, usage: Usage, reserved: Reserved) -> None:
        """Credit was reserved for want of a lease: opens one if that is the second time soon."""
        key = usage.account_id, usage.meter
        lease = self._by_account.get(usage.account_id, {}).get(usage.meter)
        if lease is not None and not lease.is_retired:
            lease.balance = reserved.available
            return
        now = time.monotonic()
        before = self._asked_at.pop(key, None)
        self._asked_at[key] = now
        if len(self._asked_at) > _REMEMBERED:
            self._asked_at.popitem(last=False)
        rates = self._tariff.rates(usage.meter)
        if rates is None or key in self._opening or before is None or now - before > AGAIN_S:
            return
        price = rates.price(usage.quantity, usage.cache_result)
        if not rates.free and reserved.amount < price and reserved.available <= 0:
            self._start(self._open_in_shadow(key, usage, reserved))
        else:
            self._open(key, rates, price, reserved.available, unlimited=rates.shadow)

    def spendable(self, account_id: str, meter: str) -> int:
        """What is left in the account's lease."""
        lease = self._by_account.get(account_id, {}).get(meter)
        return 0 if lease is None else max(0, lease.left)

    async def make_room(
        self,
        usage: Usage,
        error: InsufficientCreditError,
        fill: bool,  # noqa: FBT001 (a callback's)
    ) -> bool:
        """The balance was too low: gives back what the account's leases here have, if that helps.

        With ``fill``, a lease with deliveries under way is filled up instead, so that it covers
        this one. False when the account has too little all the same, which ``error`` then says.
        """
        found = self._by_account.get(usage.account_id, {})
        currency = error.metadata.get("currency")
        leases = {meter: lease for meter, lease in found.items() if lease.currency == currency}
        left = sum(max(0, lease.left) for lease in leases.values())
        available = int(error.metadata.get("available", 0)) + left
        if not leases or available < int(error.metadata.get("needed", 0)):
            if left:
                error.metadata["available"] = str(available)
            return False
        waits = [
            self._freed(lease, usage, fill=fill and meter == usage.meter)
            for meter, lease in leases.items()
        ]
        try:
            async with asyncio.timeout(_ROOM_S):
                await asyncio.gather(*waits)
        except TimeoutError:
            return False
        return True

    async def refill(self, payment: LeasePayment, quantity: int) -> bool:
        """Has a payment's lease filled up for so much more; False when that takes too long."""
        keeper = self._keepers.get(payment.lease)
        if keeper is None:
            return False
        try:
            async with asyncio.timeout(_ROOM_S):
                await keeper.ask(payment.price_of(quantity))
        except TimeoutError:
            return False
        return True

    async def drain(self, timeout_s: float) -> None:
        """Settles and closes all leases; what does not end in time stays in the journal."""
        if self._asking is not None:
            self._asking.cancel()
        for keeper in list(self._keepers.values()):
            keeper.leave()
        late = await ended(self._tasks, timeout_s)
        if late:
            log.warning("leases_postponed", count=late)

    def _price_changed(self, meter: str) -> None:
        """Leases of a meter whose price is not what it was are closed."""
        for leases in self._by_account.values():
            if meter in leases:
                leases[meter].retire()

    async def _freed(self, lease: Lease, usage: Usage, *, fill: bool) -> None:
        keeper = self._keepers.get(lease)
        if keeper is None:
            return
        if fill and lease.in_flight and not lease.is_retired:
            await keeper.ask(lease.books[usage.cache_result].price(usage.quantity))
        else:
            lease.retire()
            await keeper.ended.wait()

    async def _open_in_shadow(self, key: Key, usage: Usage, reserved: Reserved) -> None:
        """Less was reserved than it costs: in shadow mode, or at a price that is not known yet."""
        self._opening.add(key)
        try:
            await self._tariff.renew()
        except ServiceError:
            return
        finally:
            self._opening.discard(key)
        rates = self._tariff.rates(usage.meter)
        if rates is not None:
            price = rates.price(usage.quantity, usage.cache_result)
            self._open(key, rates, price, 0, unlimited=reserved.amount < price)

    def _open(self, key: Key, rates: Rates, price: int, available: int, *, unlimited: bool) -> None:
        """Opens a lease in the background, if there is enough for one worth having."""
        account_id, meter = key
        amount = min(self._policy.credits, available // SHARE, _MANY * max(1, price))
        least = max(1, _FEW * price)
        if unlimited:
            amount, least = max(1, amount), 1
        if amount < least:
            return
        slot = self._journal.take()
        if slot is None:
            log.warning("leases_exhausted")
            return
        live_s = min(_SHADOW_S, self._policy.live_s) if unlimited else self._policy.live_s
        terms = LeaseTerms(
            uuid4().hex,
            account_id,
            self._owner,
            meter,
            rates.currency,
            amount,
            least,
            round(live_s * 1000),
            self._policy.expiry_policy,
        )
        keeper = Keeper(self._calls, self._policy, slot, terms, rates, unlimited=unlimited)
        self._opening.add(key)
        self._start(self._kept(key, keeper, slot))

    async def _kept(self, key: Key, keeper: Keeper, slot: Slot) -> None:
        """Opens a lease and looks after it to its end."""
        account_id, meter = key
        try:
            opened = await keeper.open()
        finally:
            self._opening.discard(key)
        lease = keeper.lease
        if opened:
            leases = self._by_account.setdefault(account_id, {})
            leases[meter] = lease
            self._keepers[lease] = keeper
            try:
                await keeper.keep()
            finally:
                del self._keepers[lease]
                if leases.get(meter) is lease:
                    del leases[meter]
                if not leases and self._by_account.get(account_id) is leases:
                    del self._by_account[account_id]
        else:
            self._asked_at.pop(key, None)  # it asks twice again before it is tried again
        if keeper.ended.is_set():
            self._journal.give_back(slot)

    async def _settle_left(self, slot: Slot) -> None:
        """Settles what an earlier process did not, and closes the lease; once, however often."""
        terms = slot.terms
        if not slot.is_open:
            try:
                leased = await self._calls.open(terms)
            except ServiceError as error:
                log.info("lease_not_undone", reason=error.reason_name())
                self._journal.give_back(slot)
                return
            slot.open(leased.hold_id)
        unanswered = slot.unanswered
        if unanswered is not None:
            await settled(self._calls, slot, terms, unanswered)
            slot.answer(unanswered.number)
        if unanswered is None or not unanswered.final:
            totals = slot.delivered(with_unreported=self._policy.debit_unreported)
            last = slot.freeze(totals, 0, 0, final=True)
            await settled(self._calls, slot, terms, last)
        self._journal.give_back(slot)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = start(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("lease_lost", exc_info=error)
