"""An object that is not here costs one round trip to the chain service where credit is leased."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tollmesh.chain.v1.chain_pb2_grpc import ChainServiceStub

from services.chain import errors as chain_errors
from services.edge import ahead
from services.edge.objects import ObjectKey
from services.edge.origin import Origin
from services.rpc.client import connect
from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.deadline import DEADLINE_S
from tests.support.fake_chain import NETWORK

KIB = 1024


@pytest.fixture
async def origin(world: World) -> AsyncIterator[Origin]:
    async with connect(world.chain_address, errors=chain_errors.ERRORS) as channel:
        origin = Origin(ChainServiceStub(channel), idle_s=5.0)
        yield origin
        origin.close()


@pytest.fixture
async def leasing(world: World, tenant: Tenant) -> AsyncIterator[RunningEdge]:
    """An edge that has a lease of the tenant's credit."""
    async with world.edge(lease_credits=100_000, lease_settle_s=0.05) as edge:
        await edge.leased(world.chain.add(some_bytes(KIB)), tenant)
        yield edge


async def test_what_an_object_is_and_its_bytes_are_asked_for_in_one_call(
    world: World, leasing: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(700 * KIB)
    cid = world.chain.add(data)

    answer = await leasing.get(object_path(cid), tenant)

    assert (answer.status, answer.body) == (200, data)
    assert world.chain.stats[cid] == 0
    assert [read for read in world.chain.reads if read[0] == cid] == [(cid, 0, len(data))]
    await leasing.cached(cid)


async def test_the_rest_of_a_large_object_is_read_when_it_is_paid_for(
    world: World, leasing: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(ahead.AHEAD_BYTES + 300 * KIB)
    cid = world.chain.add(data)

    answer = await leasing.get(object_path(cid), tenant)

    assert (answer.status, answer.body) == (200, data)
    parts = [(cid, 0, ahead.AHEAD_BYTES), (cid, ahead.AHEAD_BYTES, 300 * KIB)]
    assert [read for read in world.chain.reads if read[0] == cid] == parts
    assert world.chain.stats[cid] == 0


async def test_a_part_or_a_head_is_not_read_ahead(
    world: World, leasing: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(KIB))

    assert (await leasing.get(object_path(cid), tenant, method="HEAD")).status == 200
    assert (world.chain.stats[cid], [r for r in world.chain.reads if r[0] == cid]) == (1, [])

    other = world.chain.add(some_bytes(KIB))
    assert (await leasing.get(object_path(other), tenant, Range="bytes=5-9")).status == 206
    assert world.chain.stats[other] == 1


async def test_without_leased_credit_nothing_is_fetched_before_it_is_set_aside(
    world: World, leasing: RunningEdge
) -> None:
    poor = await world.tenant(credit=0)
    cid = world.chain.add(some_bytes(KIB))

    assert (await leasing.get(object_path(cid), poor)).status == 402
    assert [read for read in world.chain.reads if read[0] == cid] == []


async def test_an_object_that_is_not_there_is_404(leasing: RunningEdge, tenant: Tenant) -> None:
    missing = "bafkr6i" + "a" * 52

    assert (await leasing.get(object_path(missing), tenant)).status == 404


async def test_a_read_that_nobody_takes_up_ends(
    world: World, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_KEPT_S", 0.05)
    cid = world.chain.add(some_bytes(4 * KIB))
    world.chain.objects[cid].pause(KIB)

    info = await origin.stat(ObjectKey(NETWORK, cid), ahead=True)

    assert info.size_bytes == 4 * KIB
    await until(lambda: world.chain.reading == 0, "the read has ended")


async def test_of_too_many_reads_the_oldest_end(
    world: World, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_MOST", 3)
    monkeypatch.setattr(ahead, "_KEPT_S", DEADLINE_S)
    size = 10 * KIB
    cids = [world.chain.add(bytes([number]) * size) for number in range(8)]
    for cid in cids:
        world.chain.objects[cid].pause(KIB)
        await origin.stat(ObjectKey(NETWORK, cid), ahead=True)

    await until(lambda: world.chain.reading == 3, "the others have ended")
    world.chain.objects[cids[-1]].resume()
    pieces = [piece async for piece in origin.read(ObjectKey(NETWORK, cids[-1]), 0, size)]
    assert b"".join(pieces) == bytes([7]) * size
    assert len([read for read in world.chain.reads if read[0] == cids[-1]]) == 1

    origin.close()
    await until(lambda: world.chain.reading == 0, "all have ended")
