"""Downloads that are broken off: the account pays for what was sent, and only for that."""

from __future__ import annotations

import asyncio
import random

import pytest
from tollmesh.credits.v1 import credits_pb2
from tollmesh.edge.v1 import edge_pb2

from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.fake_chain import NETWORK
from tests.support.raw_reader import RawReader, open_reader
from tests.support.seeds import chosen_seed

MEBIBYTE = 1024 * 1024
SIZE = 8 * MEBIBYTE


async def _reader(edge: RunningEdge, tenant: Tenant, cid: str) -> RawReader:
    return await open_reader(edge.host, edge.port, object_path(cid), tenant.headers)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("hit", [False, True])
async def test_a_reader_that_leaves_pays_for_what_reached_it(
    world: World, edge: RunningEdge, tenant: Tenant, hit: bool, reset: bool
) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    if hit:
        await edge.get(object_path(cid), tenant)
        await edge.cached(cid)
    before = len(await tenant.paid())
    reader = await _reader(edge, tenant, cid)
    await asyncio.to_thread(reader.read, 300_000)
    arrived = await asyncio.to_thread(reader.arrived)
    assert 300_000 <= arrived < SIZE
    reader.close(reset=reset)
    [paid] = (await tenant.paid())[before:]
    assert paid.metered.quantity == arrived
    assert paid.kind == credits_pb2.ENTRY_KIND_CAPTURE


async def test_a_reader_that_says_it_had_enough_pays_to_the_byte(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    reader = await _reader(edge, tenant, cid)
    await asyncio.to_thread(reader.read, 300_000)
    received = await asyncio.to_thread(reader.read_to_the_end)
    reader.close()
    assert 300_000 <= received < SIZE
    assert await tenant.paid_bytes() == [received]


@pytest.mark.parametrize("reset", [False, True])
async def test_a_reader_that_leaves_amid_several_ranges_pays_for_what_reached_it(
    world: World, edge: RunningEdge, tenant: Tenant, reset: bool
) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    ranges = {"Range": f"bytes=0-9,100-{SIZE // 2},{SIZE // 2 + 100}-"}
    headers = tenant.headers | ranges
    reader = await open_reader(edge.host, edge.port, object_path(cid), headers)
    await asyncio.to_thread(reader.read, 300_000)
    arrived = await asyncio.to_thread(reader.arrived)
    assert 300_000 <= arrived < SIZE
    reader.close(reset=reset)
    assert await tenant.paid_bytes() == [arrived], "delimiters are a part of it"


async def test_many_downloads_broken_off_anywhere_add_up(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    seed = chosen_seed()
    rng = random.Random(seed)
    cid = world.chain.add(some_bytes(SIZE))

    async def broken_off(count: int, reset: bool) -> int:
        reader = await _reader(edge, tenant, cid)
        await asyncio.to_thread(reader.read, count)
        arrived = await asyncio.to_thread(reader.arrived)
        reader.close(reset=reset)
        return arrived

    arrived = await asyncio.gather(
        *(broken_off(rng.randrange(1, SIZE - 2 * MEBIBYTE), rng.random() < 0.5) for _ in range(20))
    )
    assert sorted(await tenant.paid_bytes()) == sorted(arrived)


async def test_a_second_answer_on_a_connection_is_counted_by_itself(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    reader = await _reader(edge, tenant, cid)
    await asyncio.to_thread(reader.read, SIZE)
    await asyncio.to_thread(reader.request, object_path(cid), tenant.headers)
    await asyncio.to_thread(reader.read, 200_000)
    arrived = await asyncio.to_thread(reader.arrived)
    reader.close()
    assert await tenant.paid_bytes() == [SIZE, arrived]


async def test_who_leaves_before_the_first_byte_pays_nothing(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(MEBIBYTE))
    world.chain.objects[cid].pause(at=0)
    asking = asyncio.create_task(edge.get(object_path(cid), tenant))
    await until(lambda: world.chain.reading == 1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    world.chain.objects[cid].resume()
    assert await tenant.paid() == []
    kinds = [entry.kind for entry in await tenant.entries()]
    assert kinds[-1] == credits_pb2.ENTRY_KIND_RELEASE


async def test_a_reader_that_stalls_is_cut_off_before_its_hold_expires(
    world: World, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    async with world.edge(transfer_s=1, slowest_bytes_per_s=2**40) as edge:
        reader = await _reader(edge, tenant, cid)
        await asyncio.to_thread(reader.read, 1)  # the second may be over by now
        entries = await tenant.paid()
        received = await asyncio.to_thread(reader.read_to_the_end)
        reader.close()
    assert [entry.metered.quantity for entry in entries] == [received]
    assert 0 < received < SIZE


async def test_a_grpc_reader_that_leaves_pays_for_the_messages_that_were_taken(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    request = edge_pb2.ReadObjectRequest(network=NETWORK, cid=cid)
    call = edge.stub.ReadObject(request, metadata=tenant.metadata)
    received = 0
    async for answer in call:
        received += len(answer.data)
        if received > MEBIBYTE:
            break
    call.cancel()
    [paid] = await tenant.paid_bytes()
    assert received <= paid < SIZE
