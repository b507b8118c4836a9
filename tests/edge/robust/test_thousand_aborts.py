"""A thousand downloads broken off anywhere, on every path: what was captured is what arrived."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tollmesh.credits.v1 import credits_pb2
from tollmesh.edge.v1 import edge_pb2

from tests.edge.conftest import RunningEdge, Tenant, World, object_path, until
from tests.support.broken_downloads import Broken, Place, break_off, break_off_tls
from tests.support.certificates import Authority
from tests.support.fake_chain import NETWORK

MEBIBYTE = 1024 * 1024
PARALLEL = 20
COUNTS = {"memory": 250, "disk": 250, "miss": 200, "range": 200, "tls": 50, "grpc": 50}
GRPC_IN_FLIGHT_BYTES = 4 * MEBIBYTE
"""A window of HTTP/2, which grows with the speed, and a message of 256 KiB."""
WINDOWED = {"tls", "grpc"}
"""Where what waits at this machine is not known to the byte."""

Abort = Callable[[Tenant], Awaitable[Broken]]


class _Aborts:
    """What came of them, by path: each path has accounts of its own."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.pool = ThreadPoolExecutor(PARALLEL)
        self.broken: dict[str, list[tuple[Tenant, list[Broken]]]] = {}

    async def run(self, path: str, tenants: list[Tenant], abort: Abort) -> None:
        """Breaks off as many as the path's share, each account one at a time."""
        left = iter(range(COUNTS[path]))

        async def reader(tenant: Tenant) -> tuple[Tenant, list[Broken]]:
            return tenant, [await abort(tenant) for _ in left]

        self.broken[path] = await asyncio.gather(*(reader(tenant) for tenant in tenants))

    async def check(self, path: str) -> int:
        """Never free, never double: each bill against what arrived; how many downloads."""
        arrived = paid = count = 0
        for tenant, broken in self.broken[path]:
            captured = await _captured(tenant)
            least, most = sum(one.least for one in broken), sum(one.most for one in broken)
            assert least <= captured <= most, (path, captured, broken)
            arrived, paid, count = arrived + least, paid + captured, count + len(broken)
        # What counts as whole though its end had not arrived is little, on the whole.
        assert path in WINDOWED or paid - arrived <= count * 64 * 1024, path
        print(f"{path}: {count} broken off, {arrived:,} bytes arrived, {paid:,} captured")  # noqa: T201 (figures)
        return count


async def _captured(tenant: Tenant) -> int:
    """Bytes that the account paid for, once nothing is set aside any more."""

    async def settled() -> bool:
        return (await tenant.balance()).held == 0

    await until(settled, "all is settled")
    request = credits_pb2.GetUsageRequest(account_id=tenant.account_id)
    usage = (await tenant.credits.GetUsage(request)).usage
    return sum(line.quantity for line in usage if line.meter == "download")


def _over_http(edge: RunningEdge, aborts: _Aborts, cids: Mapping[str, int], *, part: bool) -> Abort:
    async def abort(tenant: Tenant) -> Broken:
        cid, size = aborts.dice.choice(list(cids.items()))
        headers = {"X-API-Key": tenant.key}
        length = size
        if part:
            first = aborts.dice.randrange(size // 2)
            length = aborts.dice.randrange(1, size - first + 1)
            headers["Range"] = f"bytes={first}-{first + length - 1}"
        place = Place(edge.host, edge.port, object_path(cid), headers, length)
        chance = random.Random(aborts.dice.random())
        return await asyncio.get_running_loop().run_in_executor(
            aborts.pool, break_off, place, chance
        )

    return abort


def _over_tls(
    edge: RunningEdge, aborts: _Aborts, cids: Mapping[str, int], context: ssl.SSLContext
) -> Abort:
    async def abort(tenant: Tenant) -> Broken:
        cid, size = aborts.dice.choice(list(cids.items()))
        place = Place(edge.host, edge.port, object_path(cid), {"X-API-Key": tenant.key}, size)
        chance = random.Random(aborts.dice.random())
        return await asyncio.get_running_loop().run_in_executor(
            aborts.pool, break_off_tls, place, chance, context
        )

    return abort


def _over_grpc(edge: RunningEdge, aborts: _Aborts, cids: Mapping[str, int]) -> Abort:
    async def abort(tenant: Tenant) -> Broken:
        cid, size = aborts.dice.choice(list(cids.items()))
        request = edge_pb2.ReadObjectRequest(network=NETWORK, cid=cid)
        call = edge.stub.ReadObject(request, metadata=tenant.metadata)
        wanted, received = aborts.dice.randrange(size), 0
        async for answer in call:
            received += len(answer.data)
            if received > wanted:
                break
        call.cancel()
        return Broken(received, min(size, received + GRPC_IN_FLIGHT_BYTES))

    return abort


@pytest.fixture
async def aborts(dice: random.Random) -> AsyncIterator[_Aborts]:
    made = _Aborts(dice)
    yield made
    made.pool.shutdown()


@asynccontextmanager
async def _holding(edge: RunningEdge, cids: Mapping[str, int], world: World) -> AsyncIterator[None]:
    """Brings objects into the cache."""
    reader = await world.tenant()
    for cid in cids:
        await edge.get(object_path(cid), reader)
        await edge.cached(cid)
    yield


@pytest.mark.parametrize("lease_credits", [0, 1_000_000], ids=["by holds", "out of leases"])
async def test_a_thousand_downloads_broken_off_are_paid_for_what_arrived(
    world: World, aborts: _Aborts, dice: random.Random, tmp_path: Path, lease_credits: int
) -> None:
    leases = {"lease_credits": lease_credits, "lease_settle_s": 0.05, "lease_idle_s": 0.3}

    def some(count: int, smallest: int, largest: int) -> dict[str, int]:
        sizes = [dice.randrange(smallest, largest) for _ in range(count)]
        return {world.chain.add(dice.randbytes(size)): size for size in sizes}

    small, large = some(6, MEBIBYTE // 4, MEBIBYTE), some(6, MEBIBYTE + 1, 4 * MEBIBYTE)
    other = some(12, MEBIBYTE // 4, 2 * MEBIBYTE)
    async with (
        world.edge(**leases) as edge,
        world.edge(
            cache_dir=tmp_path / "little",
            disk_bytes=4 * MEBIBYTE,
            pin_bytes=0,
            memory_bytes=0,
            **leases,
        ) as little,
        _holding(edge, small | large, world),
    ):
        paths: dict[str, Abort] = {
            "memory": _over_http(edge, aborts, small, part=False),
            "disk": _over_http(edge, aborts, large, part=False),
            "miss": _over_http(little, aborts, other, part=False),
            "range": _over_http(edge, aborts, small | large, part=True),
            "grpc": _over_grpc(edge, aborts, large),
        }
        for path, abort in paths.items():
            tenants = [await world.tenant() for _ in range(PARALLEL)]
            await aborts.run(path, tenants, abort)
    authority = Authority(tmp_path)
    signed = authority.sign("edge")
    async with world.edge(
        tls_certificate_file=signed.certificate_file, tls_key_file=signed.key_file, **leases
    ) as edge:
        context = ssl.create_default_context(cafile=str(authority.own.certificate_file))
        tenants = [await world.tenant() for _ in range(PARALLEL)]
        await aborts.run("tls", tenants, _over_tls(edge, aborts, large, context))
    assert sum([await aborts.check(path) for path in COUNTS]) == 1000
