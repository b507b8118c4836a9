"""What is done to the cache on purpose: warming, purging, and the same by gRPC."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tollmesh.auth.v1 import auth_pb2
from tollmesh.edge.v1 import edge_pb2

from services.auth.errors import ScopeMissingError
from services.edge.cache.disk import DiskCache
from services.edge.cache.files import Mapping, PartialFile
from services.edge.errors import BanNotFoundError, ObjectBannedError, ObjectPinnedError
from services.edge.objects import ObjectKey
from services.rpc.call import Call
from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.cache_operations import BLOCKED_BY, MEBIBYTE, ban_path, cached, purge, warm
from tests.support.fake_chain import NETWORK, cid_of


@pytest.fixture
async def operator(world: World) -> Tenant:
    return await world.tenant(credit=0, scopes=(auth_pb2.SCOPE_ADMIN,))


@pytest.fixture
async def edge(world: World) -> AsyncIterator[RunningEdge]:
    async with world.edge(blocked_by=BLOCKED_BY) as edge:
        yield edge


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


async def test_warming_that_is_given_up_is_free_and_fetches_no_more(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(MEBIBYTE))
    world.chain.objects[cid].pause(at=MEBIBYTE - 1)
    request = edge_pb2.WarmObjectRequest(network=NETWORK, cid=cid)
    call = edge.stub.WarmObject(request, metadata=tenant.metadata)

    def is_read() -> bool:
        fill = edge.edge.fills.find(cid)
        return fill is not None and fill.received == MEBIBYTE - 1

    def has_readers() -> bool:
        fill = edge.edge.fills.find(cid)
        return fill is not None and fill.readers > 0

    await until(is_read, "nearly all of it is here")
    call.cancel()
    await until(lambda: not has_readers(), "the caller is gone")
    world.chain.objects[cid].resume()
    await until(lambda: edge.edge.fills.find(cid) is None, "the fetch has ended")
    await until(lambda: edge.edge.disk.used_bytes == 0, "nothing is kept")
    assert edge.edge.disk.info(cid) is None
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


async def test_what_is_purged_while_it_is_being_kept_is_not_kept(
    world: World, edge: RunningEdge, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    cid = world.chain.add(some_bytes(1000))
    usual, sealing, released = PartialFile.seal, threading.Event(), threading.Event()

    def slow(file: PartialFile, directory: Path) -> bytes:
        sealing.set()
        released.wait()
        return usual(file, directory)

    monkeypatch.setattr(PartialFile, "seal", slow)
    warming = asyncio.create_task(warm(edge, tenant, cid))
    try:
        await until(sealing.is_set)
        key = ObjectKey(NETWORK, cid)
        purging = asyncio.create_task(edge.edge.operations.purge(key, force=False))
        await asyncio.sleep(0)  # it goes as far as it can
    finally:
        released.set()
    assert await purging
    assert (await warming).status == 200
    assert edge.edge.disk.info(cid) is None
    await until(lambda: edge.edge.disk.used_bytes == 0, "its room is free")


async def test_what_is_dropped_while_it_is_read_for_memory_does_not_get_there(
    world: World, edge: RunningEdge, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be dropped because it is damaged."""
    cid = world.chain.add(some_bytes(1000))
    await edge.get(object_path(cid), tenant)
    await edge.cached(cid)
    usual = DiskCache.in_memory

    async def dropped(disk: DiskCache, mapping: Mapping, offset: int, length: int) -> None:
        await usual(disk, mapping, offset, length)
        await edge.edge.operations.forget(cid)

    monkeypatch.setattr(DiskCache, "in_memory", dropped)
    info = edge.edge.disk.info(cid)
    assert info is not None
    assert await edge.edge._sources.held(ObjectKey(NETWORK, cid), info) is not None
    assert edge.edge.memory.peek(cid) is None


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


async def test_the_log_names_operations_as_their_callers_do(
    world: World, edge: RunningEdge, tenant: Tenant, operator: Tenant
) -> None:
    """Refused ones, too."""
    servicer = edge.edge._servicer()
    named: dict[str, Any] = {"network": NETWORK, "cid": world.chain.add(b"hello")}
    asked: list[tuple[Any, Any, Tenant]] = [
        (servicer.WarmObject, edge_pb2.WarmObjectRequest(request_id="1", **named), tenant),
        (servicer.PurgeObject, edge_pb2.PurgeObjectRequest(request_id="2", **named), operator),
        (servicer.BanObject, edge_pb2.BanObjectRequest(request_id="3", **named), operator),
        (servicer.UnbanObject, edge_pb2.UnbanObjectRequest(request_id="4", **named), operator),
        (servicer.UnbanObject, edge_pb2.UnbanObjectRequest(request_id="5", **named), tenant),
    ]
    for ask, request, caller in asked:
        call = Call("operation", dict(caller.metadata))
        with suppress(ScopeMissingError):
            await ask(request, call)
        assert call.log_fields["attempt"] == request.request_id
