"""Objects on their way into the cache: shared, followed, broken off, begun again."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from services.chain.errors import NetworkUnavailableError, ObjectCorruptError
from tests.edge.conftest import Answer, RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.fake_chain import CHUNK_BYTES
from tests.support.multipart_body import parts_of

MEBIBYTE = 1024 * 1024


async def test_the_first_byte_is_sent_while_the_last_is_still_to_come(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(2 * MEBIBYTE)
    cid = world.chain.add(data)
    found = world.chain.objects[cid]
    found.pause(at=MEBIBYTE)
    async with edge.session.get(object_path(cid), headers=tenant.headers) as response:
        assert response.status == 200
        assert await response.content.readexactly(MEBIBYTE) == data[:MEBIBYTE]
        assert edge.edge.disk.info(cid) is None
        found.resume()
        assert await response.content.read() == data[MEBIBYTE:]
    await edge.cached(cid)


async def test_fifty_who_ask_at_once_share_one_fetch(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(MEBIBYTE)
    cid = world.chain.add(data)
    world.chain.objects[cid].pause(at=CHUNK_BYTES)
    asking = [asyncio.create_task(edge.get(object_path(cid), tenant)) for _ in range(50)]
    await until(lambda: _readers(edge, cid) == 50, "all read the one fill")
    world.chain.objects[cid].resume()
    answers = await asyncio.gather(*asking)
    assert all(answer.body == data for answer in answers)
    assert world.chain.reads == [(cid, 0, MEBIBYTE)]
    assert world.chain.stats[cid] <= 2
    statuses = sorted(answer.headers["Cache-Status"] for answer in answers)
    assert statuses == ['"test"; fwd=uri-miss; collapsed'] * 49 + ['"test"; fwd=uri-miss; stored']
    assert await tenant.paid_bytes() == [MEBIBYTE] * 50
    assert {entry.amount for entry in await tenant.paid()} == {2048}, "all are misses"


def _readers(edge: RunningEdge, cid: str) -> int:
    fill = edge.edge.fills.find(cid)
    return fill.readers if fill else 0


async def _half_arrived(
    world: World, edge: RunningEdge, tenant: Tenant
) -> tuple[str, bytes, asyncio.Task[Answer]]:
    """An object of which half arrives before ``resume``, and who reads all of it."""
    data = some_bytes(2 * MEBIBYTE)
    cid = world.chain.add(data)
    world.chain.objects[cid].pause(at=MEBIBYTE)
    whole = asyncio.create_task(edge.get(object_path(cid), tenant))
    await until(lambda: edge.edge.fills.find(cid) is not None)
    return cid, data, whole


async def test_a_range_of_what_has_arrived_does_not_wait_for_the_rest(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid, data, whole = await _half_arrived(world, edge, tenant)
    part = await edge.get(object_path(cid), tenant, Range="bytes=1000-1999")
    assert part.body == data[1000:2000]
    assert not whole.done()
    world.chain.objects[cid].resume()
    assert (await whole).body == data
    assert world.chain.reads == [(cid, 0, 2 * MEBIBYTE)]


async def test_several_ranges_wait_only_for_their_own_bytes(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid, data, whole = await _half_arrived(world, edge, tenant)
    several = await edge.get(object_path(cid), tenant, Range="bytes=500000-500009,1000-1999")
    parts = parts_of(several.headers["Content-Type"], several.body)
    assert [part.body for part in parts] == [data[500_000:500_010], data[1000:2000]]
    assert several.headers["Cache-Status"] == '"test"; fwd=uri-miss; collapsed'
    headers = tenant.headers | {"Range": f"bytes=0-9,{MEBIBYTE}-{MEBIBYTE + 9}"}
    async with edge.session.get(object_path(cid), headers=headers) as response:
        assert data[:10] in await response.content.readuntil(data[:10]), "the other is not here"
        assert not whole.done()
        world.chain.objects[cid].resume()
        assert data[MEBIBYTE : MEBIBYTE + 10] in await response.content.read()
    assert (await whole).body == data
    assert world.chain.reads == [(cid, 0, 2 * MEBIBYTE)]


async def test_several_ranges_of_what_nobody_fetched_share_one_fetch(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(2 * MEBIBYTE)
    cid = world.chain.add(data)
    several = await edge.get(object_path(cid), tenant, Range="bytes=0-9,500-509,900000-900009")
    parts = parts_of(several.headers["Content-Type"], several.body)
    assert [part.body for part in parts] == [data[:10], data[500:510], data[900_000:900_010]]
    assert world.chain.reads == [(cid, 0, 2 * MEBIBYTE)], "not given up between two parts"


async def test_of_several_ranges_those_far_ahead_are_read_by_themselves(
    world: World, tenant: Tenant
) -> None:
    data = some_bytes(2 * MEBIBYTE)
    cid = world.chain.add(data)
    async with world.edge(range_gap_bytes=MEBIBYTE) as edge:
        several = await edge.get(object_path(cid), tenant, Range="bytes=-10,0-9")
        parts = parts_of(several.headers["Content-Type"], several.body)
        assert [part.body for part in parts] == [data[-10:], data[:10]]
        assert several.headers["Cache-Status"] == '"test"; fwd=bypass'
    assert (cid, 2 * MEBIBYTE - 10, 10) in world.chain.reads


async def test_a_failure_amid_several_ranges_breaks_off_after_what_was_right(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(MEBIBYTE)
    cid = world.chain.add(data)
    world.chain.objects[cid].failures = [(700_000, ObjectCorruptError())]
    headers = tenant.headers | {"Range": "bytes=0-9,699990-700009"}
    async with edge.session.get(object_path(cid), headers=headers) as response:
        assert response.status == 206
        body = await response.content.readuntil(data[699_990:700_000])
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    assert await tenant.paid_bytes() == [len(body)]


async def test_a_range_far_ahead_is_read_by_itself(world: World, tenant: Tenant) -> None:
    data = some_bytes(2 * MEBIBYTE)
    cid = world.chain.add(data)
    async with world.edge(range_gap_bytes=MEBIBYTE) as edge:
        found = world.chain.objects[cid]
        found.pause(at=CHUNK_BYTES)
        whole = asyncio.create_task(edge.get(object_path(cid), tenant))
        await until(lambda: edge.edge.fills.find(cid) is not None)
        flow, found.flow = found.flow, asyncio.Event()
        found.flow.set()  # what is asked for from now on flows; the first read still waits
        part = await edge.get(object_path(cid), tenant, Range="bytes=-1000")
        assert part.body == data[-1000:]
        assert part.headers["Cache-Status"] == '"test"; fwd=bypass'
        assert not whole.done()
        flow.set()
        assert (await whole).body == data
    assert world.chain.reads == [(cid, 0, 2 * MEBIBYTE), (cid, 2 * MEBIBYTE - 1000, 1000)]


async def test_a_failed_fill_gives_what_was_verified_and_then_breaks_off(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(MEBIBYTE)
    cid = world.chain.add(data)
    world.chain.objects[cid].failures = [(700_000, ObjectCorruptError())]
    async with edge.session.get(object_path(cid), headers=tenant.headers) as response:
        assert response.status == 200
        assert await response.content.readexactly(700_000) == data[:700_000]
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    assert await tenant.paid_bytes() == [700_000]
    assert edge.edge.disk.info(cid) is None
    await until(lambda: edge.edge.disk.used_bytes == 0, "the partial file's room is free again")


async def test_a_faltering_chain_is_asked_again_from_the_byte_reached(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(MEBIBYTE)
    cid = world.chain.add(data)
    world.chain.objects[cid].failures = [(700_000, NetworkUnavailableError())]
    answer = await edge.get(object_path(cid), tenant)
    assert answer.body == data
    assert world.chain.reads == [(cid, 0, MEBIBYTE), (cid, 700_000, MEBIBYTE - 700_000)]


async def test_a_silent_chain_is_given_up(world: World, tenant: Tenant) -> None:
    cid = world.chain.add(some_bytes(1000))
    world.chain.objects[cid].pause(at=0)
    async with world.edge(origin_idle_s=0.05) as edge:
        answer = await edge.get(object_path(cid), tenant)
        assert (answer.status, answer.json()["reason"]) == (503, "DEPENDENCY_UNAVAILABLE")
        await until(lambda: world.chain.reading == 0, "no read is left behind")
    world.chain.objects[cid].resume()


@pytest.mark.parametrize("arrived", [MEBIBYTE // 4, MEBIBYTE // 4 * 3])
async def test_a_fill_without_readers_goes_on_only_if_half_is_here(
    world: World, edge: RunningEdge, tenant: Tenant, arrived: int
) -> None:
    data = some_bytes(MEBIBYTE)
    cid = world.chain.add(data)
    world.chain.objects[cid].pause(at=arrived)
    async with edge.session.get(object_path(cid), headers=tenant.headers) as response:
        assert await response.content.readexactly(arrived) == data[:arrived]
        # A reader's leaving is noticed with the next piece.
    world.chain.objects[cid].resume()
    await until(lambda: edge.edge.fills.find(cid) is None)
    await until(lambda: world.chain.reading == 0)
    if arrived < MEBIBYTE // 2:
        await until(lambda: edge.edge.disk.used_bytes in (0, MEBIBYTE))
    else:
        await edge.cached(cid)
        assert edge.edge.disk.used_bytes == MEBIBYTE


async def test_what_finds_no_room_is_delivered_all_the_same(world: World, tenant: Tenant) -> None:
    data = some_bytes(MEBIBYTE)
    cid = world.chain.add(data)
    async with world.edge(disk_bytes=MEBIBYTE - 1, pin_bytes=0) as edge:
        for _ in range(2):
            answer = await edge.get(object_path(cid), tenant)
            assert answer.body == data
            assert answer.headers["Cache-Status"] == '"test"; fwd=uri-miss; detail=no-room'
        assert edge.edge.disk.used_bytes == 0
    assert [entry.amount for entry in await tenant.paid()] == [2048, 2048]


async def test_a_chain_that_sends_too_much_or_too_little_is_not_believed(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"0123456789")
    found = world.chain.objects[cid]
    assert (await edge.get(object_path(cid), tenant, "HEAD")).headers["Content-Length"] == "10"
    found.data = b"01234"
    with pytest.raises(aiohttp.ClientPayloadError):
        await edge.get(object_path(cid), tenant)
    assert await tenant.paid_bytes() == [5]
    assert edge.edge.disk.info(cid) is None
