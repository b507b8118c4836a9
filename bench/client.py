"""The client library under load: one debit a call, many at once."""

from __future__ import annotations

import asyncio
import time

from tollmesh.client import AsyncCreditClient

from bench.http2_load import Outcome
from bench.load import HOT, Measured, Target, processor_s


def debits_by_library(target: Target, in_flight: int, seconds: float) -> Measured:
    """Debits of the hot account by so many callers of one client."""
    before = processor_s(target.pid)
    outcome = asyncio.run(_call(target.address, in_flight, seconds))
    return Measured(outcome, processor_s(target.pid) - before)


async def _call(address: str, in_flight: int, seconds: float) -> Outcome:
    latencies: list[float] = []
    async with AsyncCreditClient(address) as client:
        began = time.perf_counter()

        async def caller() -> None:
            now = time.perf_counter()
            while now < began + seconds:
                before = now
                await client.debit(HOT, 1)
                now = time.perf_counter()
                latencies.append(now - before)

        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return Outcome(len(latencies), time.perf_counter() - began, latencies)
