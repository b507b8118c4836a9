"""What keeps pins as they were promised, in the background: paid ahead, and here.

Whatever fails is tried again at the next round; nothing is paid twice by that.
"""

from __future__ import annotations

import asyncio
import time

from services.edge.bans import Bans
from services.edge.cache.catalog import CatalogError
from services.edge.cache.disk import DiskCache
from services.edge.cache.pin_records import Pin
from services.edge.errors import ObjectBannedError
from services.edge.fill import Fills
from services.edge.lookup import ObjectLookup
from services.edge.pins.pins import Pins
from services.process.logs import get_logger
from services.rpc.errors import ServiceError

log = get_logger(__name__)

_AT_ONCE = 1000  # pins that are looked at before others have their turn


class PinKeeper:
    """Renews pins, and fetches what is pinned and not here (any more).

    Args:
        pins: what is pinned.
        bans: a banned object's pin is not renewed.
        disk: what is here.
        fills: brings in what is not.
        lookup: what is known of objects.
        round_s: how often it looks.
    """

    def __init__(
        self,
        pins: Pins,
        bans: Bans,
        disk: DiskCache,
        fills: Fills,
        lookup: ObjectLookup,
        *,
        round_s: float,
    ) -> None:
        self._pins = pins
        self._bans = bans
        self._disk = disk
        self._fills = fills
        self._lookup = lookup
        self._round_s = round_s

    async def run(self) -> None:
        """Works until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renewing())
            tasks.create_task(self._restoring())

    async def renew(self, now: float) -> None:
        """Pays for every period that is to be paid at ``now`` (Unix time, in s)."""
        for number, pin in enumerate(self._pins.all()):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            if not self._pins.needs_care(pin, now):
                continue
            try:
                await self._renew(pin, now)
            except (ServiceError, CatalogError) as error:
                log.warning("pin_not_renewed", object=str(pin.key), error=str(error))
            except Exception:  # whatever it is, the others are renewed
                log.exception("pin_not_renewed", object=str(pin.key))

    async def restore(self) -> None:
        """Fetches what is pinned and not here: it was damaged, or dropped."""
        for pin in self._pins.all():
            if pin.size_bytes == 0 or self._disk.info(pin.key.cid) is not None:
                continue
            try:
                await self._fills.whole(pin.key, await self._lookup.find(pin.key))
            except ObjectBannedError:
                continue
            except ServiceError as error:
                log.warning("pin_not_restored", object=str(pin.key), reason=error.reason_name())

    async def _renew(self, pin: Pin, now: float) -> None:
        try:
            self._bans.check(pin.key)
        except ObjectBannedError:
            if now >= pin.paid_until:
                await self._pins.end(pin, "banned")
        else:
            await self._pins.renew(pin, now)

    async def _renewing(self) -> None:
        while True:
            await self.renew(time.time())
            await asyncio.sleep(self._round_s)

    async def _restoring(self) -> None:
        while True:
            await self.restore()
            await asyncio.sleep(self._round_s)
