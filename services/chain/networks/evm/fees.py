"""What a transaction offers for each gas (EIP-1559), in wei."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.chain.networks.evm.endpoints import Endpoints, Query, quantity
from services.chain.networks.evm.jsonrpc import RpcError

GWEI = 10**9


@dataclass(frozen=True, slots=True)
class Fees:
    """At most ``max_fee`` in all, of which ``priority_fee`` to the block's producer."""

    max_fee: int
    priority_fee: int

    @property
    def as_tuple(self) -> tuple[int, int]:
        """``max_fee`` and ``priority_fee``."""
        return self.max_fee, self.priority_fee

    def raised(self, suggested: Fees, limit: int) -> Fees | None:
        """What replaces a stuck transaction; None when the limit does not allow a replacement.

        Pools want both fees at least a tenth higher (geth: ``--txpool.pricebump``).
        """
        max_fee = min(max(suggested.max_fee, self.max_fee * 9 // 8 + 1), limit)
        priority = max(suggested.priority_fee, self.priority_fee * 9 // 8 + 1)
        if max_fee * 10 < self.max_fee * 11 or priority > max_fee:
            return None
        return Fees(max_fee, priority)


async def suggest(endpoints: Endpoints, limit: int) -> Fees:
    """Fees that get into one of the next blocks, even when the base fee doubles before.

    ``limit`` bounds them; when it is below the base fee, a transaction waits until that falls.
    Raises ``NetworkUnavailableError``.
    """
    base, priority = await endpoints.ask(
        [
            Query("eth_getBlockByNumber", ("latest", False), _base_fee),
            Query("eth_maxPriorityFeePerGas", (), quantity),
        ]
    )
    base = base if isinstance(base, int) else 0
    if isinstance(priority, RpcError) or priority is None:
        priority = GWEI  # an endpoint that does not advise
    max_fee = min(2 * base + priority, limit)
    return Fees(max_fee, min(priority, max_fee))


def _base_fee(block: dict[str, Any] | None) -> int:
    return quantity((block or {}).get("baseFeePerGas", "0x0"))
