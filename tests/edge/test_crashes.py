"""An edge that is killed: nothing unverified is served by the next one, and the bill is right."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from pathlib import Path

import aiohttp
import pytest

from tests.edge.conftest import Tenant, World, object_path, some_bytes, until
from tests.support.raw_reader import open_reader
from tests.support.seeds import chosen_seed
from tests.support.service_process import ServiceProcess, running

MEBIBYTE = 1024 * 1024
ROUNDS = 5


@pytest.fixture
def settings(world: World) -> dict[str, str]:
    known = world.settings().model_dump(exclude_unset=True)
    return {name: str(value) for name, value in known.items()}


async def _get(process: ServiceProcess, cid: str, tenant: Tenant) -> tuple[bytes, str]:
    async with (
        aiohttp.ClientSession(f"http://{process.address}") as session,
        session.get(object_path(cid), headers=tenant.headers) as response,
    ):
        assert response.status == 200
        return await response.read(), response.headers["Cache-Status"]


async def test_killed_while_filling_it_starts_again_with_nothing_half(
    world: World, tenant: Tenant, settings: dict[str, str], tmp_path: Path
) -> None:
    data = some_bytes(2 * MEBIBYTE)
    cid = world.chain.add(data)
    cache = Path(settings["cache_dir"])
    async with running("edge", settings, tmp_path) as process:
        host, _, port = process.address.rpartition(":")
        world.chain.objects[cid].pause(at=MEBIBYTE)
        reader = await open_reader(host, int(port), object_path(cid), tenant.headers)
        await asyncio.to_thread(reader.read, MEBIBYTE)
        assert list((cache / "partial").iterdir())
        assert await process.stop(signal.SIGKILL) == -signal.SIGKILL
        reader.close()
    assert (await tenant.balance()).held > 0
    world.chain.objects[cid].resume()
    async with running("edge", settings, tmp_path) as process:
        [paid] = await tenant.paid_bytes()
        assert 0 < paid <= MEBIBYTE, "what was sent, by the journal, and no more"
        assert not list((cache / "partial").iterdir())
        assert await _get(process, cid, tenant) == (data, '"test"; fwd=uri-miss; stored')
        assert await process.stop() == 0
    async with running("edge", settings, tmp_path) as process:
        assert await _get(process, cid, tenant) == (data, '"test"; hit; detail=disk')
        assert await process.stop() == 0


async def test_killed_at_any_moment_it_serves_only_what_is_right(
    world: World, settings: dict[str, str], tmp_path: Path
) -> None:
    seed = chosen_seed()
    rng = random.Random(seed)
    tenant = await world.tenant()
    objects = {}
    for _ in range(12):
        data = rng.randbytes(rng.randrange(1, 600_000))
        objects[world.chain.add(data)] = data
    settings |= {"disk_bytes": str(2 * MEBIBYTE), "pin_bytes": "0", "memory_bytes": "0"}
    for _ in range(ROUNDS):
        async with running("edge", settings, tmp_path) as process:
            asking = [
                asyncio.create_task(_check(process, cid, objects[cid], tenant))
                for cid in rng.choices(list(objects), k=30)
            ]
            await asyncio.sleep(rng.random() * 0.3)
            await process.stop(signal.SIGKILL)
            await asyncio.gather(*asking)
    async with running("edge", settings, tmp_path) as process:
        for cid, data in objects.items():
            assert (await _get(process, cid, tenant))[0] == data
        await until(lambda: _settled(tenant))
        assert await process.stop() == 0
    files = [
        file for file in (Path(settings["cache_dir"]) / "objects").rglob("*") if file.is_file()
    ]
    assert sum(file.stat().st_size for file in files) <= 2 * MEBIBYTE


async def _check(process: ServiceProcess, cid: str, data: bytes, tenant: Tenant) -> None:
    """Whatever arrives before the kill is right."""
    received = bytearray()
    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        async with (
            aiohttp.ClientSession(f"http://{process.address}") as session,
            session.get(object_path(cid), headers=tenant.headers) as response,
        ):
            if response.status == 200:
                async for chunk in response.content.iter_any():
                    received += chunk
    assert data.startswith(received)


async def _settled(tenant: Tenant) -> bool:
    return (await tenant.balance()).held == 0
