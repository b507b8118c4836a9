"""Pins: objects that an account keeps on this edge, paid for once for as long as they stay."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Literal
from weakref import WeakValueDictionary

from services.edge.admission import Caller
from services.edge.cache.catalog import Catalog, Pin, PinRequest
from services.edge.cache.disk import DiskCache
from services.edge.errors import PinCapacityExhaustedError, PinNotFoundError
from services.edge.fill import Fills
from services.edge.holds import Hold, Holds, Receipt, Usage
from services.edge.lookup import ObjectLookup
from services.edge.objects import ObjectInfo, ObjectKey
from services.edge.uploads import paid, scoped_request_id
from services.rpc.errors import RequestIdReusedError

METER = "pin"


@dataclass(frozen=True, slots=True)
class Pinned:
    """An object that is pinned now, and what that cost."""

    info: ObjectInfo
    receipt: Receipt
    created: bool
    """Whether it was not pinned before."""


class Pins:
    """The pins of one edge.

    Args:
        catalog: where they are kept.
        disk: the disk tier, which spares what is pinned.
        fills: brings in what is not there yet.
        lookup: what is known of objects.
        holds: sets credit aside before, and settles after.
        max_bytes: the room for pinned objects.
    """

    def __init__(
        self,
        catalog: Catalog,
        disk: DiskCache,
        fills: Fills,
        lookup: ObjectLookup,
        holds: Holds,
        *,
        max_bytes: int,
    ) -> None:
        self._catalog = catalog
        self._disk = disk
        self._fills = fills
        self._lookup = lookup
        self._holds = holds
        self._max_bytes = max_bytes
        self._pins: set[tuple[str, ObjectKey]] = set()
        self._counts: Counter[str] = Counter()
        self._sizes: dict[str, int] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self) -> None:
        """Reads the pins. From now on the disk tier spares them."""
        for pin in await self._catalog.pins():
            self._pins.add((pin.account_id, pin.key))
            self._keep(pin.key.cid, pin.size_bytes)
        self._disk.spare(self._sizes.keys())

    def is_pinned(self, caller: Caller, key: ObjectKey) -> bool:
        """Whether the account has pinned an object here."""
        return (caller.account_id, key) in self._pins

    @property
    def used_bytes(self) -> int:
        """The room that pinned objects take."""
        return sum(self._sizes.values())

    async def pin(self, caller: Caller, key: ObjectKey, request_id: str) -> Pinned:
        """Fetches an object and keeps it. Idempotent by request id and by the pin itself.

        Raises PinCapacityExhaustedError, RequestIdReusedError, InsufficientCreditError, and what
        the services behind raise; nothing is paid then.
        """
        async with self._lock(caller):
            earlier = await self._earlier(caller, "pin", key, request_id)
            info = await self._lookup.find(key)
            if earlier is not None:
                return Pinned(info, Receipt(earlier.amount, earlier.currency), created=False)
            if self.is_pinned(caller, key):
                await self._catalog.add_request(_request(caller, "pin", key, request_id))
                return Pinned(info, Receipt(0, ""), created=False)
            return await self._pin(caller, key, info, request_id)

    async def unpin(self, caller: Caller, key: ObjectKey, request_id: str) -> None:
        """Lets go of an object. Idempotent by request id.

        Raises PinNotFoundError, RequestIdReusedError.
        """
        async with self._lock(caller):
            if await self._earlier(caller, "unpin", key, request_id) is not None:
                return
            if not self.is_pinned(caller, key):
                raise PinNotFoundError
            request = _request(caller, "unpin", key, request_id)
            await self._catalog.remove_pin(caller.account_id, key, request)
            self._pins.discard((caller.account_id, key))
            self._let_go(key.cid)

    async def _pin(
        self, caller: Caller, key: ObjectKey, info: ObjectInfo, request_id: str
    ) -> Pinned:
        if key.cid not in self._sizes and self.used_bytes + info.size_bytes > self._max_bytes:
            raise PinCapacityExhaustedError
        self._keep(key.cid, info.size_bytes)
        try:
            receipt = await self._bring_in(caller, key, info, request_id)
        except BaseException:
            self._let_go(key.cid)
            raise
        self._pins.add((caller.account_id, key))
        return Pinned(info, receipt, created=True)

    async def _bring_in(
        self, caller: Caller, key: ObjectKey, info: ObjectInfo, request_id: str
    ) -> Receipt:
        usage = Usage(caller.account_id, METER, info.size_bytes, str(key))
        scoped = scoped_request_id(caller, "pin", request_id)
        hold = await self._holds.reserve(usage, request_id=scoped)
        try:
            if not await self._is_whole(key, info):
                raise PinCapacityExhaustedError
            await self._record(caller, key, info, hold, request_id)
            hold.deliver(info.size_bytes)
        finally:
            settlement = self._holds.settle(hold)
        return await paid(hold, settlement)

    async def _is_whole(self, key: ObjectKey, info: ObjectInfo) -> bool:
        if info.size_bytes == 0 or await self._disk.mapping(key.cid) is not None:
            return True
        return await self._fills.whole(key, info)

    async def _record(
        self, caller: Caller, key: ObjectKey, info: ObjectInfo, hold: Hold, request_id: str
    ) -> None:
        request = _request(
            caller, "pin", key, request_id, hold.reserved.amount, hold.reserved.currency
        )
        await self._catalog.add_pin(Pin(caller.account_id, key, info.size_bytes), request)

    async def _earlier(
        self, caller: Caller, verb: Literal["pin", "unpin"], key: ObjectKey, request_id: str
    ) -> PinRequest | None:
        """The same request, if it was made before. Raises RequestIdReusedError for another."""
        earlier = await self._catalog.request(caller.account_id, request_id)
        if earlier is not None and (earlier.verb, earlier.object) != (verb, str(key)):
            raise RequestIdReusedError
        return earlier

    def _lock(self, caller: Caller) -> asyncio.Lock:
        """An account's pins change one after the other."""
        return self._locks.setdefault(caller.account_id, asyncio.Lock())

    def _keep(self, cid: str, size_bytes: int) -> None:
        self._counts[cid] += 1
        self._sizes[cid] = size_bytes

    def _let_go(self, cid: str) -> None:
        self._counts[cid] -= 1
        if not self._counts[cid]:
            del self._counts[cid]
            del self._sizes[cid]


def _request(
    caller: Caller,
    verb: Literal["pin", "unpin"],
    key: ObjectKey,
    request_id: str,
    amount: int = 0,
    currency: str = "",
) -> PinRequest:
    return PinRequest(caller.account_id, request_id, verb, str(key), amount, currency)
