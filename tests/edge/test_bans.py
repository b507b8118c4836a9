"""Bans: 451 on every way, at once, until they are lifted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest
from tollmesh.auth.v1 import auth_pb2
from tollmesh.chain.v1 import chain_pb2
from tollmesh.edge.v1 import edge_pb2

from services.edge.admission import Client
from services.edge.door.requests import GuestRequest
from services.edge.errors import ObjectBannedError
from services.edge.objects import ObjectKey
from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.cache_operations import BLOCKED_BY, MEBIBYTE, ban, ban_path, cached
from tests.support.fake_chain import NETWORK, OTHER_NETWORK, cid_of


@pytest.fixture
async def operator(world: World) -> Tenant:
    return await world.tenant(credit=0, scopes=(auth_pb2.SCOPE_ADMIN,))


@pytest.fixture
async def edge(world: World) -> AsyncIterator[RunningEdge]:
    async with world.edge(blocked_by=BLOCKED_BY) as edge:
        yield edge


async def test_a_banned_object_is_451_on_every_way_and_network(
    world: World, edge: RunningEdge, tenant: Tenant, operator: Tenant
) -> None:
    data = some_bytes(10_000)
    cid = world.chain.add(data, networks=frozenset({NETWORK, OTHER_NETWORK}))
    await edge.get(object_path(cid), tenant)
    await edge.cached(cid)
    answer = await ban(edge, operator, cid, "?reason=By%20order%20of%20a%20court.")
    assert answer.status == 201
    assert edge.edge.disk.info(cid) is None
    assert edge.edge.disk.used_bytes == 0
    ways = [
        ("GET", object_path(cid)),
        ("HEAD", object_path(cid)),
        ("GET", object_path(cid, OTHER_NETWORK)),
        ("GET", f"/downloads/{cid}"),
        ("GET", f"/file/{cid}"),
        ("POST", f"{object_path(cid)}/warm"),
        ("PUT", f"/pins/{NETWORK}/{cid}"),
    ]
    paid = await tenant.paid()
    for method, path in ways:
        refused = await edge.get(path, tenant, method)
        assert refused.status == 451, (method, path)
        assert refused.headers["Link"] == f'<{BLOCKED_BY}>; rel="blocked-by"'
        if method != "HEAD":
            assert refused.json()["reason"] == "OBJECT_BANNED"
            assert refused.json()["detail"] == "By order of a court."
    assert (await edge.get(object_path(cid), tenant, Range="bytes=0-0")).status == 451
    assert await tenant.paid() == paid
    assert len(world.chain.reads) == 1
    status = await edge.get(f"{object_path(cid)}/status", tenant)
    assert status.json()["reason"] == "PUBLICATION_NOT_FOUND", "how an upload fared is told"


async def test_a_ban_outlives_a_restart_and_ends_when_it_is_lifted(
    world: World, tenant: Tenant, operator: Tenant
) -> None:
    data = some_bytes(10_000)
    cid = world.chain.add(data)
    async with world.edge() as edge:
        assert (await ban(edge, operator, cid)).status == 201
        assert (await ban(edge, operator, cid, "?reason=why")).status == 200
    async with world.edge() as edge:
        answer = await edge.get(object_path(cid), tenant)
        assert (answer.status, "Link" in answer.headers) == (451, False)
        bans = (await edge.get("/bans", operator)).json()["bans"]
        assert [(found["cid"], found["reason"]) for found in bans] == [(cid, "why")]
        assert (await edge.get(ban_path(cid), operator)).json() == bans[0]
        assert (await edge.get(ban_path(cid), operator, "DELETE")).status == 204
        missing = await edge.get(ban_path(cid), operator, "DELETE")
        assert (missing.status, missing.json()["reason"]) == (404, "BAN_NOT_FOUND")
        assert (await edge.get(object_path(cid), tenant)).body == data
    async with world.edge() as edge:
        assert (await edge.get("/bans", operator)).json()["bans"] == []


async def test_a_ban_that_crosses_its_lifting_stands_when_it_was_answered_last(
    edge: RunningEdge, operator: Tenant
) -> None:
    cid = cid_of(b"anything")
    await ban(edge, operator, cid)
    lifting = edge.edge.bans.lift(ObjectKey(NETWORK, cid))
    banning = edge.edge.bans.add(ObjectKey(NETWORK, cid), "again")
    await asyncio.gather(lifting, banning)
    assert (await edge.get(ban_path(cid), operator)).json()["reason"] == "again"


async def test_who_is_reading_a_banned_object_is_cut_off(
    world: World, edge: RunningEdge, tenant: Tenant, operator: Tenant
) -> None:
    data = some_bytes(8 * MEBIBYTE)
    other = await cached(world, edge, tenant, some_bytes(8 * MEBIBYTE))
    cid = await cached(world, edge, tenant, data)
    async with (
        aiohttp.ClientSession(edge.url) as mine,
        aiohttp.ClientSession(edge.url) as theirs,
        mine.get(object_path(cid), headers=tenant.headers) as response,
        theirs.get(object_path(other), headers=tenant.headers) as untouched,
    ):
        await response.content.readexactly(1000)
        await untouched.content.readexactly(1000)
        assert (await ban(edge, operator, cid)).status == 201
        with pytest.raises(aiohttp.ClientError):
            await response.content.read()
        assert len(await untouched.content.read()) == 8 * MEBIBYTE - 1000
    await until(lambda: edge.edge.disk.used_bytes == 8 * MEBIBYTE, "its room is free")


async def test_who_waits_for_a_banned_object_is_told(
    world: World, edge: RunningEdge, tenant: Tenant, operator: Tenant
) -> None:
    cid = world.chain.add(some_bytes(MEBIBYTE))
    world.chain.objects[cid].pause(at=0)
    waiting = asyncio.create_task(edge.get(object_path(cid), tenant))
    pinning = asyncio.create_task(edge.get(f"/pins/{NETWORK}/{cid}", tenant, "PUT"))
    fills = edge.edge.fills

    def both_wait() -> bool:
        fill = fills.find(cid)
        return fill is not None and fill.readers == 2

    await until(both_wait)
    await ban(edge, operator, cid)
    pinned = await pinning
    assert (pinned.status, pinned.json()["reason"]) == (451, "OBJECT_BANNED")
    with suppress(aiohttp.ClientError):  # or the connection was cut before it could be told
        assert (await waiting).status == 451
    world.chain.objects[cid].resume()
    await until(lambda: world.chain.reading == 0, "the fetch has ended")
    assert edge.edge.disk.used_bytes == 0
    assert await tenant.paid() == []


async def test_a_pin_of_a_banned_object_is_not_renewed(
    world: World, edge: RunningEdge, tenant: Tenant, operator: Tenant
) -> None:
    cid = world.chain.add(some_bytes(100_000))
    await edge.get(f"/pins/{NETWORK}/{cid}", tenant, "PUT")
    await ban(edge, operator, cid)
    [pin] = edge.edge.pins.all()
    keeper = edge.edge.upkeep.keeper
    await keeper.restore()
    assert edge.edge.disk.info(cid) is None
    await keeper.renew(pin.paid_until - 1)
    assert edge.edge.pins.all() == [pin]
    await keeper.renew(pin.paid_until)
    assert edge.edge.pins.all() == []
    assert len(await tenant.paid()) == 1


async def test_only_operators_operate(edge: RunningEdge, tenant: Tenant) -> None:
    cid = cid_of(b"anything")
    for method, path in (
        ("DELETE", object_path(cid)),
        ("PUT", ban_path(cid)),
        ("GET", ban_path(cid)),
        ("DELETE", ban_path(cid)),
        ("GET", "/bans"),
    ):
        assert (await edge.get(path, tenant, method)).json()["reason"] == "SCOPE_MISSING"
        assert (await edge.get(path, None, method)).status == 401
    assert edge.edge.bans.all() == []


async def test_lists_come_in_pages(edge: RunningEdge, operator: Tenant) -> None:
    cids = [cid_of(bytes([number])) for number in range(5)]
    for cid in cids:
        await ban(edge, operator, cid)
    found, token = list[str](), ""
    for expected in (2, 2, 1):
        document = (await edge.get(f"/bans?page_size=2&page_token={token}", operator)).json()
        assert len(document["bans"]) == expected
        found += [each["cid"] for each in document["bans"]]
        token = document["next_page_token"]
    assert (found, token) == (cids, "")
    for query, reason in (
        ("page_token=x", "PAGE_TOKEN_INVALID"),
        ("page_token=-1", "PAGE_TOKEN_INVALID"),
        ("page_size=1001", "INVALID_ARGUMENT"),
        ("page_size=x", "INVALID_ARGUMENT"),
    ):
        assert (await edge.get(f"/bans?{query}", operator)).json()["reason"] == reason


async def test_mistakes_are_400(edge: RunningEdge, operator: Tenant) -> None:
    too_long = await ban(edge, operator, cid_of(b"x"), "?reason=" + 501 * "x")
    assert (too_long.status, too_long.json()["reason"]) == (400, "INVALID_ARGUMENT")
    assert (await ban(edge, operator, "bafkr6i")).json()["reason"] == "CID_INVALID"


async def test_a_grpc_reader_of_a_banned_object_is_cut_off(
    world: World, edge: RunningEdge, tenant: Tenant, operator: Tenant
) -> None:
    cid = await cached(world, edge, tenant, some_bytes(16 * MEBIBYTE))
    request = edge_pb2.ReadObjectRequest(network=NETWORK, cid=cid)
    received = 0

    async def read() -> None:
        nonlocal received
        async for part in edge.stub.ReadObject(request, metadata=tenant.metadata):
            if not received:
                await ban(edge, operator, cid)
            received += len(part.data)

    with pytest.raises(ObjectBannedError):
        await read()
    assert received < 16 * MEBIBYTE


async def test_another_proxy_is_told_not_to_deliver_a_banned_object(
    world: World, edge: RunningEdge, tenant: Tenant, operator: Tenant
) -> None:
    cid = world.chain.add(b"hello")
    asking = GuestRequest("GET", "files.example", object_path(cid), "proxy", "key", 5)
    door, client = edge.edge.door, Client(tenant.key)
    await ban(edge, operator, cid)
    with pytest.raises(ObjectBannedError):
        await door.admit(client, asking)
    await edge.get(ban_path(cid), operator, "DELETE")
    assert (await door.admit(client, asking)).account_id == tenant.account_id


async def test_an_unfinal_object_is_banned_like_any_other(
    world: World, edge: RunningEdge, tenant: Tenant, operator: Tenant
) -> None:
    cid = world.chain.add(b"hello")
    world.chain.objects[cid].finality = chain_pb2.FINALITY_LATEST
    await edge.get(object_path(cid), tenant)
    await ban(edge, operator, cid)
    assert (await edge.get(object_path(cid), tenant)).status == 451
