"""Answers of origins broken off anywhere: what was captured is what arrived."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tollmesh.credits.v1 import credits_pb2

from tests.edge.conftest import Tenant, World, until
from tests.edge.origins.conftest import Fronted
from tests.support.broken_downloads import Place, break_off
from tests.support.http_origin import answer

MEBIBYTE = 1024 * 1024
READERS, EACH = 10, 5


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"memory_object_bytes": MEBIBYTE}


async def _captured(tenant: Tenant) -> int:
    async def settled() -> bool:
        return (await tenant.balance()).held == 0

    await until(settled, "all is settled")
    request = credits_pb2.GetUsageRequest(account_id=tenant.account_id)
    usage = (await tenant.credits.GetUsage(request)).usage
    return sum(line.quantity for line in usage if line.meter == "download")


@pytest.mark.parametrize(
    ("size", "cache_control"),
    [
        (MEBIBYTE // 2, "max-age=60"),
        (3 * MEBIBYTE, "max-age=60"),
        (3 * MEBIBYTE, "no-store"),
    ],
    ids=["from memory", "from a file", "passed on"],
)
async def test_answers_broken_off_anywhere_are_paid_for_what_arrived(
    fronted: Fronted, world: World, dice: random.Random, size: int, cache_control: str
) -> None:
    fronted.origin.on("/a", answer(200, dice.randbytes(size), cache_control=cache_control))
    await fronted.get("/a")
    pool = ThreadPoolExecutor(READERS)

    async def read() -> None:
        reader = await world.tenant()
        broken = []
        for _ in range(EACH):
            host, port = fronted.edge.host, fronted.edge.port
            place = Place(host, port, "/origins/site/a", {"X-API-Key": reader.key}, size)
            chance = random.Random(dice.random())
            loop = asyncio.get_running_loop()
            broken.append(await loop.run_in_executor(pool, break_off, place, chance))
        captured = await _captured(reader)
        least, most = sum(one.least for one in broken), sum(one.most for one in broken)
        assert least <= captured <= most, broken

    try:
        await asyncio.gather(*(read() for _ in range(READERS)))
    finally:
        pool.shutdown()
