"""What is done to the cache on purpose: objects warmed, purged, banned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.edge.admission import Caller
from services.edge.bans import Ban, Bans
from services.edge.cache.disk import DiskCache
from services.edge.cache.memory import MokaCache
from services.edge.credit.holds import Receipt
from services.edge.credit.payments import Payments
from services.edge.downloads import usage_of
from services.edge.errors import ObjectPinnedError
from services.edge.fill import Fills
from services.edge.lookup import ObjectLookup
from services.edge.objects import ObjectInfo, ObjectKey
from services.edge.pins.pins import Pins
from services.process.logs import get_logger

log = get_logger(__name__)

_FREE = Receipt(0, "")


@dataclass(frozen=True, slots=True)
class Warmed:
    """An object that was to be brought in."""

    info: ObjectInfo
    receipt: Receipt
    cached: bool
    """Whether it is here now; False when there is no room for it."""


class Operations:
    """Warms, purges and bans.

    Args:
        bans: what is not served.
        memory: the memory tier.
        disk: the disk tier.
        fills: what is on its way in.
        pins: what is kept for money.
        lookup: what is known of objects.
        payments: sets credit aside before, and settles after.
        cut_off: ends the deliveries of a CID that are under way; how many.
    """

    def __init__(
        self,
        bans: Bans,
        memory: MokaCache,
        disk: DiskCache,
        fills: Fills,
        pins: Pins,
        lookup: ObjectLookup,
        payments: Payments,
        cut_off: Callable[[str], int],
    ) -> None:
        self.bans = bans
        self._memory = memory
        self._disk = disk
        self._fills = fills
        self._pins = pins
        self._lookup = lookup
        self._payments = payments
        self._cut_off = cut_off

    async def warm(self, caller: Caller, key: ObjectKey) -> Warmed:
        """Fetches an object into the cache without delivering it.

        The caller pays as for a download that misses: the chain is asked on its behalf. What is
        here already, or finds no room, is free; so is what fails. Safe to repeat. Raises
        ObjectBannedError, InsufficientCreditError, and what the services behind raise.
        """
        info = await self._lookup.find(key)
        if info.size_bytes == 0 or self._disk.info(key.cid) is not None:
            return Warmed(info, _FREE, cached=True)
        usage = usage_of(caller, key, info.size_bytes, hit=False)
        payment = self._payments.take(usage) or await self._payments.reserve(usage)
        try:
            cached = await self._fills.whole(key, info)
            if cached:
                payment.deliver(info.size_bytes)
        finally:
            payment.settle()
        return Warmed(info, Receipt(payment.amount, payment.currency) if cached else _FREE, cached)

    async def purge(self, key: ObjectKey, *, force: bool) -> bool:
        """Drops an object from both tiers, and from what is on its way in; whether it was there.

        Its readers finish. What is pinned is dropped only with ``force``: its pin stays, and it is
        fetched again. Raises ObjectPinnedError.
        """
        if self._pins.is_kept(key.cid) and not force:
            raise ObjectPinnedError
        found = await self._fills.disown(key.cid)
        found = await self.forget(key.cid) or found
        log.info("object_purged", object=str(key), found=found)
        return found

    async def ban(self, key: ObjectKey, reason: str) -> tuple[Ban, bool]:
        """Has an object not be served from now on; the ban, and whether it is new.

        Its bytes go at once, and who is reading it is cut off. Idempotent. Raises
        StoreUnavailableError.
        """
        ban, is_new = await self.bans.add(key, reason)
        self._fills.end(key.cid, self.bans.refusal(ban))
        await self.forget(key.cid)
        readers = self._cut_off(key.cid)
        log.warning("object_banned", object=str(key), reason=reason, readers=readers)
        return ban, is_new

    async def lift(self, key: ObjectKey) -> None:
        """Lets an object be served again. Raises BanNotFoundError, StoreUnavailableError."""
        await self.bans.lift(key)
        log.warning("ban_lifted", object=str(key))

    async def forget(self, cid: str) -> bool:
        """Drops an object from both tiers, whoever wants it; whether it was there."""
        in_memory = await self._memory.delete(cid)
        try:
            return await self._disk.drop(cid) or bool(in_memory)
        except OSError as error:  # it is not served any more all the same
            log.warning("cache_file_stays", cid=cid, error=str(error))
            return True
