"""An edge that is killed while it renews pins bills each period once."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path

import aiohttp

from tests.edge.conftest import World, some_bytes, until
from tests.support.fake_chain import NETWORK
from tests.support.service_process import running

PERIOD_S = 1.0
SIZE = 3600 * 1024
KILLS = 4


async def test_killed_again_and_again_it_bills_each_period_once(
    world: World, tmp_path: Path, dice: random.Random
) -> None:
    tenant = await world.tenant()
    known = world.settings(pin_period_s=PERIOD_S, scrub_bytes_per_s=0)
    settings = {name: str(value) for name, value in known.model_dump(exclude_unset=True).items()}
    cid = world.chain.add(some_bytes(SIZE))
    began = time.time()
    for kill in range(KILLS + 1):
        async with running("edge", settings, tmp_path) as process:
            if kill == 0:
                url = f"http://{process.address}/pins/{NETWORK}/{cid}"
                async with (
                    aiohttp.ClientSession(headers=tenant.headers) as session,
                    session.put(url) as answer,
                ):
                    assert answer.status == 201
            before = len(await tenant.entries())

            async def renewed(before: int = before) -> bool:
                return len(await tenant.entries()) > before + 1

            await until(renewed, "it renews")
            if kill < KILLS:
                await asyncio.sleep(dice.uniform(0, PERIOD_S / 5))  # at any moment of a round
                assert await process.stop(signal.SIGKILL) == -signal.SIGKILL
            else:
                assert await process.stop() == 0
    lasted_s = time.time() - began
    paid = await tenant.paid()
    assert len({entry.request_id for entry in paid}) == len(paid) >= KILLS
    assert {entry.metered.quantity for entry in paid} == {int(SIZE * PERIOD_S / 3600)}
    assert len(paid) <= lasted_s / PERIOD_S + 2, "each second at most once, and one ahead"
