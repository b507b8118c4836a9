from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from tollmesh.client import AsyncCreditClient, CreditClient, Metered

METERED = Metered(meter="download", quantity=1)
Call = Callable[..., Awaitable[object]]


def _calls(client: AsyncCreditClient) -> dict[str, Call]:
    """What takes a price; each with what else it needs."""
    return {
        "debit": lambda *args, **more: client.debit("alice", *args, **more),
        "send": lambda *args, **more: client.debit_stream().send("alice", *args, **more),
        "reserve": lambda *args, **more: client.reserve("alice", *args, time_to_live_s=1, **more),
        "capture": lambda *args, **more: client.capture("alice", "hold", *args, **more),
    }


@pytest.mark.parametrize("name", ["debit", "send", "reserve", "capture"])
async def test_exactly_one_price_is_given(name: str, unused_address: str) -> None:
    async with AsyncCreditClient(unused_address) as client:
        call = _calls(client)[name]
        with pytest.raises(ValueError, match="not both"):
            await call(1, metered=METERED)
        with pytest.raises(ValueError, match="not both"):
            await call(0, metered=METERED)
        with pytest.raises(ValueError, match="not both"):
            await call()


async def test_a_hold_is_extended_with_one_price_or_none(unused_address: str) -> None:
    async with AsyncCreditClient(unused_address) as client:
        with pytest.raises(ValueError, match="not both"):
            await client.extend_hold(
                "alice", "hold", time_to_live_s=1, amount=1, metered=Metered(meter="download")
            )


def test_threads_give_exactly_one_price_too(unused_address: str) -> None:
    with CreditClient(unused_address) as client:
        with pytest.raises(ValueError, match="not both"):
            client.debit("alice", 1, metered=METERED)
        with pytest.raises(ValueError, match="not both"):
            client.reserve("alice", 1, metered=METERED, time_to_live_s=1)
        with pytest.raises(ValueError, match="not both"):
            client.capture("alice", "hold", 1, metered=METERED)
        with pytest.raises(ValueError, match="not both"):
            client.extend_hold("alice", "hold", amount=1, metered=METERED, time_to_live_s=1)
