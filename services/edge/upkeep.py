"""What an edge does by itself: pins renewed and restored, files looked after."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.edge.background import start
from services.edge.bans import Bans
from services.edge.cache.catalog import Catalog
from services.edge.cache.disk import DiskCache
from services.edge.cache.memory import MokaCache
from services.edge.cache.pin_records import PinRecords
from services.edge.cache.scrubber import Scrubber
from services.edge.credit.till import Till
from services.edge.fill import Fills
from services.edge.lookup import ObjectLookup
from services.edge.operations import Operations
from services.edge.pins.pin_keeper import PinKeeper
from services.edge.pins.pin_periods import Periods, Terms
from services.edge.pins.pins import Pins
from services.edge.settings import EdgeSettings
from services.process.logs import get_logger

_LONGEST_ROUND_S = 30.0
_AGAIN_S = 30.0

log = get_logger(__name__)


class Upkeep:
    """Runs it.

    Args:
        keeper: of pins.
        scrubber: of files.
    """

    def __init__(self, keeper: PinKeeper, scrubber: Scrubber) -> None:
        self.keeper = keeper
        self.scrubber = scrubber
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins, in the background."""
        self._tasks = [start(_kept_on(work)) for work in (self.keeper.run, self.scrubber.run)]

    async def stop(self) -> None:
        """Ends it; what is half-done is done by the next process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _kept_on(work: Callable[[], Awaitable[None]]) -> None:
    """Begins work anew that a mistake of ours ended: pins are to be paid all the same."""
    while True:
        try:
            return await work()
        except Exception:
            log.exception("upkeep_failed")
        await asyncio.sleep(_AGAIN_S)


@dataclass(frozen=True, slots=True)
class Kept:
    """What an edge keeps, and what is done to it."""

    pins: Pins
    operations: Operations
    upkeep: Upkeep


def make_kept(
    settings: EdgeSettings,
    catalog: Catalog,
    tiers: tuple[MokaCache, DiskCache, Fills],
    lookup: ObjectLookup,
    bans: Bans,
    till: Till,
    cut_off: Callable[[str], int],
) -> Kept:
    """Pins, operations and upkeep of an edge; the upkeep begins with its ``start``."""
    memory, disk, fills = tiers
    records = PinRecords(catalog)
    pins = Pins(
        records,
        disk,
        fills,
        lookup,
        till.holds,
        Periods(till.holds, till.ledger, records),
        Terms(settings.pin_period_s, settings.pin_grace_s),
        max_bytes=settings.pin_bytes,
    )
    operations = Operations(bans, memory, disk, fills, pins, lookup, till.payments, cut_off)
    round_s = min(settings.pin_period_s / 50, _LONGEST_ROUND_S)
    keeper = PinKeeper(pins, bans, disk, fills, lookup, round_s=round_s)
    scrubber = Scrubber(disk, operations.forget, bytes_per_s=settings.scrub_bytes_per_s)
    return Kept(pins, operations, Upkeep(keeper, scrubber))
