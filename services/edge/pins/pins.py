"""Pins: objects that an account keeps on this edge, paid ahead by the period."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal
from weakref import WeakValueDictionary

from services.credits.errors import InsufficientCreditError
from services.edge.admission import Caller
from services.edge.background import to_its_end
from services.edge.cache.catalog import told_to_callers
from services.edge.cache.disk import DiskCache
from services.edge.cache.pin_records import Due, Pin, PinRecords, PinRequest
from services.edge.credit.holds import Hold, Holds, Receipt, Usage
from services.edge.errors import PinCapacityExhaustedError, PinNotFoundError
from services.edge.fill import Fills
from services.edge.lookup import ObjectLookup
from services.edge.objects import ObjectInfo, ObjectKey
from services.edge.pins.pin_periods import METER, Periods, Terms, quantity
from services.edge.uploads import scoped_request_id
from services.process.logs import get_logger
from services.rpc.errors import RequestIdReusedError

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pinned:
    """An object that is pinned now, and what its first period cost."""

    info: ObjectInfo
    receipt: Receipt
    paid_until: float
    """Unix time, in s."""
    created: bool
    """Whether it was not pinned before."""


class Pins:
    """The pins of one edge.

    Args:
        records: where they are kept.
        disk: the disk tier, which spares what is pinned.
        fills: brings in what is not there yet.
        lookup: what is known of objects.
        holds: sets credit aside while an object is fetched.
        periods: pays.
        terms: what a pin costs, and when.
        max_bytes: the room for pinned objects.
    """

    def __init__(
        self,
        records: PinRecords,
        disk: DiskCache,
        fills: Fills,
        lookup: ObjectLookup,
        holds: Holds,
        periods: Periods,
        terms: Terms,
        *,
        max_bytes: int,
    ) -> None:
        self._records = records
        self._disk = disk
        self._fills = fills
        self._lookup = lookup
        self._holds = holds
        self._periods = periods
        self._terms = terms
        self._max_bytes = max_bytes
        self._pins: dict[tuple[str, ObjectKey], Pin] = {}
        self._counts: Counter[str] = Counter()
        self._sizes: dict[str, int] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self) -> None:
        """Reads the pins. From now on the disk tier spares them. Raises CatalogError."""
        for pin in await self._records.all():
            self._remember(pin)
        self._disk.spare(self._sizes.keys())

    def is_pinned(self, caller: Caller, key: ObjectKey) -> bool:
        """Whether the account has pinned an object here."""
        return (caller.account_id, key) in self._pins

    def is_kept(self, cid: str) -> bool:
        """Whether anybody has pinned an object here, or is about to."""
        return cid in self._sizes

    def of(self, caller: Caller) -> list[Pin]:
        """The account's pins, the oldest first."""
        return [
            pin for (account_id, _), pin in self._pins.items() if account_id == caller.account_id
        ]

    def all(self) -> list[Pin]:
        """Everybody's pins."""
        return list(self._pins.values())

    def needs_care(self, pin: Pin, now: float) -> bool:
        """Whether there is something to be paid or ended at ``now`` (Unix time, in s)."""
        return self._terms.next(pin, now) is not None

    def ends_at(self, pin: Pin) -> float:
        """When a pin that is not paid any more ends: Unix time, in s."""
        return self._terms.ends_at(pin)

    @property
    def used_bytes(self) -> int:
        """The room that pinned objects take."""
        return sum(self._sizes.values())

    async def pin(self, caller: Caller, key: ObjectKey, request_id: str) -> Pinned:
        """Fetches an object and keeps it. Idempotent by request id and by the pin itself.

        Raises PinCapacityExhaustedError, RequestIdReusedError, InsufficientCreditError,
        StoreUnavailableError, and what the services behind raise; nothing is paid then, or (the
        credit service did not answer, or its answer could not be recorded) a repetition finds what
        was.
        """
        async with self._lock(caller.account_id):
            with told_to_callers("The pin"):
                return await self._found_or_made(caller, key, request_id)

    async def unpin(self, caller: Caller, key: ObjectKey, request_id: str) -> None:
        """Lets go of an object; what is paid stays paid. Idempotent by request id.

        Raises PinNotFoundError, RequestIdReusedError, StoreUnavailableError.
        """
        async with self._lock(caller.account_id):
            with told_to_callers("The unpin"):
                await self._unpin(caller, key, request_id)

    async def renew(self, pin: Pin, now: float) -> None:
        """Pays for a pin's next period if it is time, or ends the pin. Safe to repeat.

        Raises CatalogError, and what the credit service raises when it cannot be reached.
        """
        async with self._lock(pin.account_id):
            current = self._pins.get((pin.account_id, pin.key))
            if current is None:
                return
            if self._terms.is_over(current, now):
                await self.end(current, "not_paid")
                return
            due = self._terms.next(current, now)
            if due is None:
                return
            again = current.due is not None
            if not again:
                current = replace(current, due=due)
                await self._put(current)
            with suppress(InsufficientCreditError):  # the log says so
                await self._pay(current, due, again=again, now=now)

    async def end(self, pin: Pin, because: str) -> None:
        """Ends a pin that nobody asked to end."""
        await self._remove(pin, self._records.remove(pin))
        log.warning("pin_ended", account_id=pin.account_id, object=str(pin.key), because=because)

    async def _found_or_made(self, caller: Caller, key: ObjectKey, request_id: str) -> Pinned:
        earlier = await self._earlier(caller, "pin", key, request_id)
        info = await self._lookup.find(key)
        pin = self._pins.get((caller.account_id, key))
        if pin is not None and pin.due is not None:
            pin, _ = await self._pay(pin, pin.due, again=True)
        if pin is None and earlier is None:
            return await self._pin(caller, key, info, request_id)
        if earlier is None:
            earlier = _request(caller, "pin", key, request_id)
            await self._records.add_request(earlier)
        paid_until = pin.paid_until if pin else 0.0
        receipt = Receipt(earlier.amount, earlier.currency)
        return Pinned(info, receipt, paid_until, created=False)

    async def _unpin(self, caller: Caller, key: ObjectKey, request_id: str) -> None:
        if await self._earlier(caller, "unpin", key, request_id) is not None:
            return
        pin = self._pins.get((caller.account_id, key))
        if pin is None:
            raise PinNotFoundError
        request = _request(caller, "unpin", key, request_id)
        await self._remove(pin, self._records.remove(pin, request))

    async def _pay(
        self,
        pin: Pin,
        due: Due,
        *,
        again: bool,
        now: float | None = None,
        request: PinRequest | None = None,
    ) -> tuple[Pin, int]:
        """Pays for a period that is recorded as due; the pin after it, and the amount.

        Raises as ``Periods.pay``; without credit the pin has its time of grace, or ends if nothing
        was ever paid for it.
        """
        try:
            amount = await self._periods.pay(pin, due, again=again)
        except InsufficientCreditError:
            await self._refused(pin, time.time() if now is None else now)
            raise
        paid = replace(pin, due=None, refused_since=None, paid_until=due.end)
        await self._put(paid, replace(request, amount=amount) if request else None)
        return paid, amount

    async def _refused(self, pin: Pin, now: float) -> None:
        if pin.paid_until == pin.pinned_at:
            await self._remove(pin, self._records.undo(pin))
            return
        since = now if pin.refused_since is None else pin.refused_since
        unpaid = replace(pin, due=None, refused_since=since)
        await self._put(unpaid)
        log.warning(
            "pin_unpaid",
            account_id=pin.account_id,
            object=str(pin.key),
            ends_at=self._terms.ends_at(unpaid),
        )

    async def _put(self, pin: Pin, request: PinRequest | None = None) -> None:
        await _change(self._records.put(pin, request), lambda: self._remember(pin))

    async def _remove(self, pin: Pin, recording: Coroutine[Any, Any, None]) -> None:
        await _change(recording, lambda: self._forget(pin))

    async def _pin(
        self, caller: Caller, key: ObjectKey, info: ObjectInfo, request_id: str
    ) -> Pinned:
        if key.cid not in self._sizes and self.used_bytes + info.size_bytes > self._max_bytes:
            raise PinCapacityExhaustedError
        self._keep(key.cid, info.size_bytes)
        try:
            return await self._bring_in(caller, key, info, request_id)
        finally:
            self._let_go(key.cid)

    async def _bring_in(
        self, caller: Caller, key: ObjectKey, info: ObjectInfo, request_id: str
    ) -> Pinned:
        """Fetches an object while the price of its first period is set aside, then pays that."""
        now = time.time()
        due = self._terms.first(now)
        units = quantity(info.size_bytes, due)
        usage = Usage(caller.account_id, METER, units, str(key), moved_bytes=info.size_bytes)
        scoped = scoped_request_id(caller, "pin", request_id)
        hold = await self._holds.reserve(usage, request_id=scoped)
        try:
            if not await self._is_whole(key, info):
                raise PinCapacityExhaustedError
        finally:
            released = self._holds.settle(hold)
        await released
        return await self._begin(caller, key, info, due, hold, request_id)

    async def _begin(
        self,
        caller: Caller,
        key: ObjectKey,
        info: ObjectInfo,
        due: Due,
        hold: Hold,
        request_id: str,
    ) -> Pinned:
        pin = Pin(caller.account_id, key, info.size_bytes, due.start, due.start, due)
        currency = hold.reserved.currency
        request = _request(caller, "pin", key, request_id, hold.reserved.amount, currency)
        await self._put(pin, request)
        pin, amount = await self._pay(pin, due, again=False, request=request)
        return Pinned(info, Receipt(amount, currency), pin.paid_until, created=True)

    async def _is_whole(self, key: ObjectKey, info: ObjectInfo) -> bool:
        if info.size_bytes == 0 or await self._disk.mapping(key.cid) is not None:
            return True
        return await self._fills.whole(key, info)

    async def _earlier(
        self, caller: Caller, verb: Literal["pin", "unpin"], key: ObjectKey, request_id: str
    ) -> PinRequest | None:
        """The same request, if it was made before. Raises RequestIdReusedError for another."""
        earlier = await self._records.request(caller.account_id, request_id)
        if earlier is not None and (earlier.verb, earlier.object) != (verb, str(key)):
            raise RequestIdReusedError
        return earlier

    def _lock(self, account_id: str) -> asyncio.Lock:
        """An account's pins change one after the other."""
        return self._locks.setdefault(account_id, asyncio.Lock())

    def _remember(self, pin: Pin) -> None:
        if (pin.account_id, pin.key) not in self._pins:
            self._keep(pin.key.cid, pin.size_bytes)
        self._pins[pin.account_id, pin.key] = pin

    def _forget(self, pin: Pin) -> None:
        if self._pins.pop((pin.account_id, pin.key), None) is not None:
            self._let_go(pin.key.cid)

    def _keep(self, cid: str, size_bytes: int) -> None:
        self._counts[cid] += 1
        self._sizes[cid] = size_bytes

    def _let_go(self, cid: str) -> None:
        self._counts[cid] -= 1
        if not self._counts[cid]:
            del self._counts[cid]
            del self._sizes[cid]


async def _change(recording: Coroutine[Any, Any, None], then: Callable[[], None]) -> None:
    """Records a change and makes it here: both or neither, though its caller gives up waiting."""

    async def change() -> None:
        await recording
        then()

    await to_its_end(change())


def _request(
    caller: Caller,
    verb: Literal["pin", "unpin"],
    key: ObjectKey,
    request_id: str,
    amount: int = 0,
    currency: str = "",
) -> PinRequest:
    return PinRequest(caller.account_id, request_id, verb, str(key), amount, currency)
