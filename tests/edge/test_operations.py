"""What is done to the cache on purpose: warming, purging, banning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from tollmesh.auth.v1 import auth_pb2
from tollmesh.chain.v1 import chain_pb2
from tollmesh.edge.v1 import edge_pb2

from services.edge.admission import Client
from services.edge.door.requests import GuestRequest
from services.edge.errors import BanNotFoundError, ObjectBannedError, ObjectPinnedError
from tests.edge.conftest import Answer, RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.fake_chain import NETWORK, OTHER_NETWORK, cid_of

MEBIBYTE = 1024 * 1024
BLOCKED_BY = "https://example.org/legal?case=7"


@pytest.fixture
async def operator(world: World) -> Tenant:
    return await world.tenant(credit=0, scopes=(auth_pb2.SCOPE_ADMIN,))


@pytest.fixture
async def edge(world: World) -> AsyncIterator[RunningEdge]:
    async with world.edge(blocked_by=BLOCKED_BY) as edge:
        yield edge


def ban_path(cid: str, network: str = NETWORK) -> str:
    return f"/bans/{network}/{cid}"


async def warm(edge: RunningEdge, tenant: Tenant, cid: str) -> Answer:
    return await edge.get(f"{object_path(cid)}/warm", tenant, "POST")


async def purge(edge: RunningEdge, tenant: Tenant, cid: str, query: str = "") -> Answer:
    return await edge.get(object_path(cid) + query, tenant, "DELETE")


async def ban(edge: RunningEdge, tenant: Tenant, cid: str, query: str = "") -> Answer:
    return await edge.get(ban_path(cid) + query, tenant, "PUT")


async def cached(world: World, edge: RunningEdge, tenant: Tenant, data: bytes) -> str:
    """An object that is in both tiers."""
    cid = world.chain.add(data)
    await edge.get(object_path(cid), tenant)
    await edge.cached(cid)
    assert (await edge.get(object_path(cid), tenant)).body == data
    return cid


async def test_a_warmed_object_is_a_hit_and_was_paid_like_a_miss(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(100_000)
    cid = world.chain.add(data)
    answer = await warm(edge, tenant, cid)
    assert answer.status == 200
    assert answer.json() == {
        "network": NETWORK,
        "cid": cid,
        "size_bytes": 100_000,
        "cached": True,
        "amount": 196,
        "currency": "credit",
    }
    assert (await warm(edge, tenant, cid)).json()["amount"] == 0, "it is here already"
    hit = await edge.get(object_path(cid), tenant)
    assert hit.headers["Cache-Status"].startswith('"test"; hit')
    assert world.chain.reads == [(cid, 0, 100_000)]
    await edge.stop()
    assert sum(entry.amount for entry in await tenant.paid()) == 196 + 98


async def test_a_warmed_object_without_room_is_free_and_says_so(
    world: World, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(100_000))
    async with world.edge(disk_bytes=50_000, pin_bytes=0) as edge:
        document = (await warm(edge, tenant, cid)).json()
        assert (document["cached"], document["amount"]) == (False, 0)
    assert await tenant.paid() == []


@pytest.mark.parametrize("failure", ["absent", "credit", "scope"])
async def test_what_cannot_be_warmed_is_refused_and_free(
    world: World, edge: RunningEdge, tenant: Tenant, failure: str
) -> None:
    cid = cid_of(b"absent") if failure == "absent" else world.chain.add(some_bytes(100_000))
    if failure == "credit":
        tenant = await world.tenant(credit=3)
    if failure == "scope":
        tenant = await world.tenant(scopes=(auth_pb2.SCOPE_UPLOAD,))
    expected = {"absent": 404, "credit": 402, "scope": 403}[failure]
    assert (await warm(edge, tenant, cid)).status == expected
    assert await tenant.paid() == []
    assert edge.edge.disk.info(cid) is None


async def test_a_purged_object_is_fetched_anew(
    world: World, edge: RunningEdge, tenant: Tenant, operator: Tenant
) -> None:
    data = some_bytes(10_000)
    cid = await cached(world, edge, tenant, data)
    assert (await purge(edge, operator, cid)).json()["found"] is True
    assert (await purge(edge, operator, cid)).json()["found"] is False
    assert edge.edge.disk.used_bytes == 0
    answer = await edge.get(object_path(cid), tenant)
    assert answer.body == data
    assert answer.headers["Cache-Status"] == '"test"; fwd=uri-miss; stored'


async def test_who_reads_a_purged_object_finishes(
    world: World, edge: RunningEdge, tenant: Tenant, operator: Tenant
) -> None:
    data = some_bytes(2 * MEBIBYTE)
    cid = world.chain.add(data)
    world.chain.objects[cid].pause(at=MEBIBYTE)
    async with edge.session.get(object_path(cid), headers=tenant.headers) as response:
        assert await response.content.readexactly(1000) == data[:1000]
        assert (await purge(edge, operator, cid)).json()["found"] is True
        assert edge.edge.fills.find(cid) is None
        world.chain.objects[cid].resume()
        assert await response.content.read() == data[1000:]
    await until(lambda: edge.edge.disk.used_bytes == 0, "it was not kept")
    assert edge.edge.disk.info(cid) is None


async def test_a_pinned_object_is_purged_by_force_alone_and_comes_back(
    world: World, edge: RunningEdge, tenant: Tenant, operator: Tenant
) -> None:
    data = some_bytes(10_000)
    cid = world.chain.add(data)
    assert (await edge.get(f"/pins/{NETWORK}/{cid}", tenant, "PUT")).status == 201
    refused = await purge(edge, operator, cid)
    assert (refused.status, refused.json()["reason"]) == (409, "OBJECT_PINNED")
    assert edge.edge.disk.info(cid) is not None
    assert (await purge(edge, operator, cid, "?force")).json()["found"] is True
    await edge.edge.upkeep.keeper.restore()
    assert edge.edge.disk.info(cid) is not None
    assert len((await edge.get("/pins", tenant)).json()["pins"]) == 1


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


async def test_preconditions_that_do_not_hold_are_412_and_nothing_is_done(
    world: World, edge: RunningEdge, tenant: Tenant, operator: Tenant
) -> None:
    cid = await cached(world, edge, tenant, some_bytes(1000))
    for method, path, field, value in (
        ("DELETE", object_path(cid), "If_Match", '"another"'),
        ("DELETE", object_path(cid), "If_None_Match", "*"),
        ("PUT", ban_path(cid), "If_Match", "*"),
        ("DELETE", ban_path(cid), "If_Match", "*"),
        ("POST", f"{object_path(cid)}/warm", "If_Match", f'"{cid}"'),
    ):
        answer = await edge.get(path, operator, method, **{field: value})
        assert answer.status == 412, (method, path, field)
    assert edge.edge.disk.info(cid) is not None
    assert edge.edge.bans.all() == []
    purged = await edge.get(object_path(cid), operator, "DELETE", If_Match=f'"{cid}"')
    assert purged.json()["found"] is True


async def test_the_same_by_grpc(
    world: World, edge: RunningEdge, tenant: Tenant, operator: Tenant
) -> None:
    data = some_bytes(100_000)
    cid = world.chain.add(data)
    named: dict[str, Any] = {"network": NETWORK, "cid": cid}
    mine: dict[str, Any] = {"metadata": tenant.metadata}
    theirs: dict[str, Any] = {"metadata": operator.metadata}
    warmed = await edge.stub.WarmObject(edge_pb2.WarmObjectRequest(**named), **mine)
    assert (warmed.object.cached, warmed.amount, warmed.currency) == (True, 196, "credit")
    purged = await edge.stub.PurgeObject(edge_pb2.PurgeObjectRequest(**named), **theirs)
    assert purged.found
    pinning = edge_pb2.PinObjectRequest(request_id="p", **named)
    await edge.stub.PinObject(pinning, **mine)
    with pytest.raises(ObjectPinnedError):
        await edge.stub.PurgeObject(edge_pb2.PurgeObjectRequest(**named), **theirs)
    reading = edge.stub.ReadObject(edge_pb2.ReadObjectRequest(**named), **mine)
    assert sum([len(part.data) async for part in reading]) == 100_000
    banning = edge_pb2.BanObjectRequest(reason="why", **named)
    banned = (await edge.stub.BanObject(banning, **theirs)).ban
    assert (banned.cid, banned.reason) == (cid, "why")
    with pytest.raises(ObjectBannedError) as refusal:
        await edge.stub.StatObject(edge_pb2.StatObjectRequest(**named), **mine)
    assert refusal.value.metadata == {"blocked_by": BLOCKED_BY}
    bans = await edge.stub.ListBans(edge_pb2.ListBansRequest(), **theirs)
    assert [found.cid for found in bans.bans] == [cid]
    await edge.stub.UnbanObject(edge_pb2.UnbanObjectRequest(**named), **theirs)
    with pytest.raises(BanNotFoundError):
        await edge.stub.UnbanObject(edge_pb2.UnbanObjectRequest(**named), **theirs)


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
