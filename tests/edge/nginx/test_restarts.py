"""An edge that is killed while nginx delivers: what the log tells, then or later, is paid once."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from tollmesh.credits.v1 import credits_pb2

from services.cli.mesh.processes import free_port
from tests.edge.conftest import Tenant, World, object_path, some_bytes, until
from tests.edge.nginx.conftest import PREFIX, SECRET, Front, Origin
from tests.support.nginx import Nginx, running_nginx
from tests.support.raw_reader import RawReader, open_reader
from tests.support.service_process import running

MEBIBYTE = 1024 * 1024
SIZE = 2 * MEBIBYTE
READERS = 12


@pytest.fixture
def settings(world: World, front_settings: dict[str, Any]) -> dict[str, str]:
    """Of an edge that comes back at the same address."""
    known = world.settings(**front_settings).model_dump(exclude_unset=True)
    facts = {name: str(value) for name, value in known.items()}
    secret = str(front_settings["front_secret_file"])
    return facts | {"listen": f"127.0.0.1:{free_port()}", "front_secret_file": secret}


@pytest.mark.parametrize("accelerated", [False, True])
@pytest.mark.parametrize("unreported", ["release", "debit_estimate"])
async def test_what_was_logged_while_it_was_away_is_paid_once(
    world: World,
    origin: Origin,
    tenant: Tenant,
    settings: dict[str, str],
    nginx_home: Path,
    tmp_path: Path,
    accelerated: bool,
    unreported: str,
) -> None:
    data = some_bytes(SIZE)
    path = object_path(world.chain.add(data)) if accelerated else origin.put("a", data)
    settings |= {"unreported": unreported, "accel_prefix": PREFIX if accelerated else ""}
    async with running_nginx(
        "accelerator.conf" if accelerated else "front.conf",
        nginx_home,
        edge=settings["listen"],
        secret=SECRET,
        origin=origin.address,
        cache_dir=Path(settings["cache_dir"]),
    ) as nginx:
        async with running("edge", settings, tmp_path) as process:
            for _ in range(3):
                await _leave(await _reader(nginx, path, tenant), SIZE)
            readers = [await _reader(nginx, path, tenant) for _ in range(READERS)]
            await until(lambda: _has_paid(tenant, 3 * SIZE))
            await process.stop(signal.SIGKILL)
        for number, reader in enumerate(readers):
            await _leave(reader, SIZE if number % 2 else 1000 * number + 1)
        await until(lambda: len(_logged(nginx)) == 3 + READERS)
        # A dead process cannot wait for reports: by the policy, its tickets cost their estimate,
        # and a report costs what it is beyond that.
        least = 0 if unreported == "release" else SIZE if accelerated else MEBIBYTE
        due = [*_logged(nginx)[:3], *(max(least, sent) for sent in _logged(nginx)[3:])]
        for _ in range(2):
            async with running("edge", settings, tmp_path) as process:
                await until(lambda: _has_paid(tenant, sum(due)))
                assert await process.stop() == 0
    assert sum(await tenant.paid_bytes()) == sum(due)
    if unreported == "release":
        assert Counter(await tenant.paid_bytes()) == Counter(due)


async def test_what_is_logged_when_it_stops_is_paid_before(
    front: Front, origin: Origin, tenant: Tenant
) -> None:
    path = origin.put("a", some_bytes(1000))
    assert await front.many(path, tenant, 50, 10) == {200}
    await front.edge.stop()
    assert (await tenant.balance()).held == 0
    assert await tenant.paid_bytes() == [1000] * 50


async def _reader(nginx: Nginx, path: str, tenant: Tenant) -> RawReader:
    return await open_reader("127.0.0.1", nginx.port, path, tenant.headers)


async def _leave(reader: RawReader, count: int) -> None:
    """Reads so much in all, and goes."""
    await asyncio.to_thread(reader.read, count)
    reader.close()


def _logged(nginx: Nginx) -> list[int]:
    lines = nginx.capture_log.read_bytes().splitlines()
    return [orjson.loads(line)["sent_bytes"] for line in lines]


async def _has_paid(tenant: Tenant, count: int) -> bool:
    kinds = {credits_pb2.ENTRY_KIND_CAPTURE, credits_pb2.ENTRY_KIND_DEBIT}
    entries = [entry for entry in await tenant.entries() if entry.kind in kinds]
    return sum(entry.metered.quantity for entry in entries) >= count
