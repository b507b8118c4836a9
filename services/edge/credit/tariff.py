"""What meters cost, as the edge knows it: asked of the credit service, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tollmesh.credits.v1 import credits_pb2, leases_pb2

from services.process.logs import get_logger
from services.rpc.errors import ServiceError

log = get_logger(__name__)

_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.1, 5.0
AGAIN_S = 60.0
"""How long a changed price may go unnoticed."""


class Rates(NamedTuple):
    """What one meter costs, exactly."""

    currency: str
    hit: tuple[int, int]
    """Currency per unit: numerator and denominator."""
    miss: tuple[int, int]
    minimum: int
    """Of each delivery."""
    free: int
    """Units of each period that cost nothing; local prices do not know what is left of them."""
    shadow: bool
    """Nothing of this meter is refused for want of credit."""

    def rate(self, cache_result: int) -> tuple[int, int]:
        """The rate that goes with a CacheResult."""
        return self.hit if cache_result == credits_pb2.CACHE_RESULT_HIT else self.miss

    def price(self, quantity: int, cache_result: int) -> int:
        """What one delivery costs at most: without regard to what is free."""
        numerator, denominator = self.rate(cache_result)
        return max(self.minimum, -(-quantity * numerator // denominator))


class Tariff:
    """The prices of all meters, once they are known.

    Args:
        ask: asks the credit service for all prices; raises ServiceError.
        changed: told of each meter whose price is not what it was.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[leases_pb2.GetTariffResponse]],
        changed: Callable[[str], None],
    ) -> None:
        self._ask = ask
        self._changed = changed
        self._rates: dict[str, Rates] = {}

    def rates(self, meter: str) -> Rates | None:
        """What a meter costs; None when that is not known."""
        return self._rates.get(meter)

    async def renew(self) -> None:
        """Asks for the prices. Raises ServiceError; what was known stays."""
        answer = await self._ask()
        before, self._rates = self._rates, {line.meter: _rates(line) for line in answer.meters}
        for meter, rates in before.items():
            if self._rates.get(meter) != rates:
                log.warning("tariff_changed", meter=meter)
                self._changed(meter)

    async def keep_renewing(self) -> None:
        """Asks at once, until there is an answer, and then every AGAIN_S, for ever."""
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                await self.renew()
                retry_s = _FIRST_RETRY_S
                await asyncio.sleep(AGAIN_S)
            except ServiceError as error:
                log.info("tariff_unknown", reason=error.reason_name())
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LONGEST_RETRY_S)


def _rates(line: leases_pb2.MeterRates) -> Rates:
    return Rates(
        line.currency,
        (line.hit.numerator, line.hit.denominator),
        (line.miss.numerator, line.miss.denominator),
        line.minimum,
        line.free_quantity,
        line.shadow,
    )
