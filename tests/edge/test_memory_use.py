"""Readers that stall: they share an object's pages and hold no copies of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.edge.conftest import Tenant, World, object_path, some_bytes
from tests.support.raw_reader import open_reader
from tests.support.service_process import ServiceProcess, running

MEBIBYTE = 1024 * 1024
SIZE = 8 * MEBIBYTE
READERS = 50


@pytest.mark.parametrize("hit", [True, False])
async def test_fifty_stalled_readers_of_8_mib_need_little_more_than_none(
    world: World, tenant: Tenant, tmp_path: Path, hit: bool
) -> None:
    known = world.settings().model_dump(exclude_unset=True)
    settings = {name: str(value) for name, value in known.items()} | {"drain_s": "0.1"}
    cid = world.chain.add(some_bytes(SIZE))
    async with running("edge", settings, tmp_path) as process:
        host, _, port = process.address.rpartition(":")
        warm_up = await open_reader(host, int(port), object_path(cid), tenant.headers)
        if hit:
            await asyncio.to_thread(warm_up.read, SIZE)
        else:
            world.chain.objects[cid].pause(at=SIZE - 1)
        before = _own_kib(process)
        readers = [
            await open_reader(host, int(port), object_path(cid), tenant.headers)
            for _ in range(READERS)
        ]
        await asyncio.gather(*(asyncio.to_thread(reader.arrived) for reader in readers))
        grown = (_own_kib(process) - before) * 1024
        print(f"{READERS} stalled readers: {grown / MEBIBYTE:.1f} MiB")  # noqa: T201 (a figure)
        assert grown < READERS * SIZE / 20
        world.chain.objects[cid].resume()
        for reader in (*readers, warm_up):
            reader.close()


def _own_kib(process: ServiceProcess) -> int:
    """The memory that the process has for itself: not the pages that it shares with files."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1])
