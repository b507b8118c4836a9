"""Shutdown: deliveries finish, what they cost is captured, and what hangs is cut off."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from tollmesh.edge.v1 import edge_pb2

from services.rpc.errors import DependencyUnavailableError, ShuttingDownError
from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.fake_chain import NETWORK
from tests.support.raw_reader import open_reader

MEBIBYTE = 1024 * 1024


async def test_deliveries_of_both_faces_finish_and_are_captured(
    world: World, tenant: Tenant
) -> None:
    data = some_bytes(MEBIBYTE)
    cid = world.chain.add(data)
    async with world.edge() as edge:
        world.chain.objects[cid].pause(at=MEBIBYTE // 2)
        over_http = asyncio.create_task(edge.get(object_path(cid), tenant))
        over_grpc = asyncio.create_task(_read(edge, tenant, cid))
        fills = edge.edge.fills
        await until(lambda: (fill := fills.find(cid)) is not None and fill.readers == 2)
        stopping = asyncio.create_task(edge.stop())
        await until(lambda: not edge.edge._is_ready)
        with pytest.raises((ShuttingDownError, DependencyUnavailableError)):
            await _read(edge, tenant, cid)
        assert not stopping.done()
        world.chain.objects[cid].resume()
        assert (await over_http).body == data
        assert await over_grpc == data
        await stopping
        with pytest.raises(aiohttp.ClientConnectionError):
            await edge.get("/readyz")
    assert (await tenant.balance()).held == 0, "settled before the process ended"
    assert await tenant.paid_bytes() == [MEBIBYTE, MEBIBYTE]


async def _read(edge: RunningEdge, tenant: Tenant, cid: str) -> bytes:
    request = edge_pb2.ReadObjectRequest(network=NETWORK, cid=cid)
    answers = edge.stub.ReadObject(request, metadata=tenant.metadata)
    return b"".join([answer.data async for answer in answers])


async def test_a_connection_that_stays_open_is_told_to_go(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(1000))
    world.chain.objects[cid].pause(at=0)
    assert (await edge.get("/readyz")).status == 200
    asking = asyncio.create_task(edge.get(object_path(cid), tenant))
    await until(lambda: world.chain.reading == 1)
    stopping = asyncio.create_task(edge.stop())
    await until(lambda: not edge.edge._is_ready)
    server = edge.edge.http._server
    await until(lambda: not server.servers[0].is_serving(), "it no longer listens")
    world.chain.objects[cid].resume()
    assert (await asking).headers["Connection"] == "close"
    await stopping


async def test_a_reader_that_hangs_is_cut_off_and_pays_for_what_was_sent(
    world: World, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(8 * MEBIBYTE))
    async with world.edge(drain_s=1.0) as edge:
        await edge.get(object_path(cid), tenant)
        reader = await open_reader(edge.host, edge.port, object_path(cid), tenant.headers)
        await asyncio.to_thread(reader.read, 100_000)
    received = await asyncio.to_thread(reader.read_to_the_end)
    reader.close()
    assert (await tenant.paid_bytes())[1:] == [received]
    assert 100_000 <= received < 8 * MEBIBYTE


async def test_an_edge_that_is_drained_before_it_started_ends_cleanly(world: World) -> None:
    async with world.edge() as edge:
        pass
    async with world.edge() as again:
        assert len(again.edge.disk) == 0
    assert edge.edge.disk is not again.edge.disk
