"""Pins: fetched, kept, paid ahead, bounded."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

import pytest

from services.chain.errors import ObjectCorruptError
from tests.edge.conftest import Answer, RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.fake_chain import NETWORK, cid_of

DAY_S = 86_400


def byte_hours(size_bytes: int) -> int:
    """What a period of the default length is on the meter."""
    return size_bytes * 30 * 24


async def pin(edge: RunningEdge, tenant: Tenant, cid: str, **headers: str) -> Answer:
    return await edge.get(f"/pins/{NETWORK}/{cid}", tenant, "PUT", **headers)


async def unpin(edge: RunningEdge, tenant: Tenant, cid: str, **headers: str) -> Answer:
    return await edge.get(f"/pins/{NETWORK}/{cid}", tenant, "DELETE", **headers)


async def test_a_pin_fetches_keeps_and_costs_once(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(100_000)
    cid = world.chain.add(data)
    first, second = await pin(edge, tenant, cid), await pin(edge, tenant, cid)
    assert (first.status, second.status) == (201, 200)
    paid_until = first.json()["paid_until"]
    assert first.json() == {
        "network": NETWORK,
        "cid": cid,
        "size_bytes": 100_000,
        "amount": 98,
        "currency": "credit",
        "paid_until": paid_until,
    }
    left_s = datetime.fromisoformat(paid_until).timestamp() - time.time()
    assert 29 * DAY_S < left_s <= 30 * DAY_S
    assert (second.json()["amount"], second.json()["paid_until"]) == (0, paid_until)
    [entry] = await tenant.paid()
    assert (entry.amount, entry.metered.meter, entry.metered.quantity) == (
        98,
        "pin",
        byte_hours(100_000),
    )
    answer = await edge.get(object_path(cid), tenant)
    assert answer.headers["Cache-Status"].startswith('"test"; hit')


async def test_pinned_objects_outlive_everything_else(world: World, tenant: Tenant) -> None:
    async with world.edge(disk_bytes=1_000_000, pin_bytes=500_000, memory_bytes=0) as edge:
        kept = world.chain.add(some_bytes(400_000))
        await pin(edge, tenant, kept)
        for _ in range(6):
            cid = world.chain.add(some_bytes(300_000))
            await edge.get(object_path(cid), tenant)
            await edge.cached(cid)
        assert edge.edge.disk.info(kept) is not None
    async with world.edge(disk_bytes=1_000_000, pin_bytes=500_000, memory_bytes=0) as edge:
        assert edge.edge.disk.info(kept) is not None
        assert (await pin(edge, tenant, kept)).json()["amount"] == 0
        assert (await unpin(edge, tenant, kept)).status == 204
        assert (await unpin(edge, tenant, kept)).json()["reason"] == "PIN_NOT_FOUND"
        for _ in range(6):
            cid = world.chain.add(some_bytes(300_000))
            await edge.get(object_path(cid), tenant)
            await edge.cached(cid)
        assert edge.edge.disk.info(kept) is None


async def test_the_room_for_pins_is_bounded(world: World, tenant: Tenant) -> None:
    other = await world.tenant()
    cids = [world.chain.add(some_bytes(400_000)) for _ in range(2)]
    async with world.edge(pin_bytes=500_000) as edge:
        assert (await pin(edge, tenant, cids[0])).status == 201
        refused = await pin(edge, tenant, cids[1])
        assert (refused.status, refused.json()["reason"]) == (507, "PIN_CAPACITY_EXHAUSTED")
        assert (await pin(edge, other, cids[0])).status == 201, "it takes no more room"
        assert edge.edge.pins.used_bytes == 400_000
        await unpin(edge, tenant, cids[0])
        assert (await pin(edge, tenant, cids[1])).status == 507, "the other one keeps it"
        await unpin(edge, other, cids[0])
        assert (await pin(edge, tenant, cids[1])).status == 201
    assert await tenant.paid_bytes() == [byte_hours(400_000)] * 2


@pytest.mark.parametrize("failure", ["absent", "corrupt", "credit"])
async def test_a_pin_that_fails_is_free_and_leaves_nothing(
    world: World, edge: RunningEdge, tenant: Tenant, failure: str
) -> None:
    cid = world.chain.add(some_bytes(100_000))
    expected: Any = {"absent": 404, "corrupt": 502, "credit": 402}[failure]
    if failure == "absent":
        cid = cid_of(b"absent")
    elif failure == "corrupt":
        world.chain.objects[cid].failures = [(50_000, ObjectCorruptError())]
    else:
        tenant = await world.tenant(credit=3)
    answer = await pin(edge, tenant, cid, Idempotency_Key="k")
    assert answer.status == expected
    assert await tenant.paid() == []
    assert edge.edge.pins.used_bytes == 0
    if failure == "corrupt":
        assert (await pin(edge, tenant, cid, Idempotency_Key="k")).status == 201
        assert await tenant.paid_bytes() == [byte_hours(100_000)]


async def test_a_repeated_request_is_answered_like_the_first(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid, other = world.chain.add(some_bytes(100_000)), world.chain.add(b"other")
    first = await pin(edge, tenant, cid, Idempotency_Key="k")
    again = await pin(edge, tenant, cid, Idempotency_Key="k")
    assert first.json() == again.json()
    assert (await pin(edge, tenant, other, Idempotency_Key="k")).status == 409
    assert (await unpin(edge, tenant, cid, Idempotency_Key="k")).status == 409
    assert (await unpin(edge, tenant, cid, Idempotency_Key="k2")).status == 204
    assert (await unpin(edge, tenant, cid, Idempotency_Key="k2")).status == 204
    assert (await unpin(edge, tenant, cid)).status == 404
    assert await tenant.paid_bytes() == [byte_hours(100_000)]


async def test_two_pins_at_once_are_one(world: World, edge: RunningEdge, tenant: Tenant) -> None:
    cid = world.chain.add(some_bytes(100_000))
    answers = await asyncio.gather(*(pin(edge, tenant, cid) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 200, 201]
    assert await tenant.paid_bytes() == [byte_hours(100_000)]


async def test_a_pin_keeps_the_fetch_going_when_readers_leave(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(1_000_000)
    cid = world.chain.add(data)
    world.chain.objects[cid].pause(at=100_000)
    async with edge.session.get(object_path(cid), headers=tenant.headers) as response:
        await response.content.readexactly(1000)
        pinning = asyncio.create_task(pin(edge, tenant, cid))
        fill = edge.edge.fills.find(cid)
        assert fill is not None
        await until(lambda: fill.readers == 2)
    world.chain.objects[cid].resume()
    assert (await pinning).status == 201
    assert world.chain.reads == [(cid, 0, 1_000_000)]


async def test_an_empty_object_can_be_pinned(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"")
    assert (await pin(edge, tenant, cid)).json()["amount"] == 0
    assert (await unpin(edge, tenant, cid)).status == 204
