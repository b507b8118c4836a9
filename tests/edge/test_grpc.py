"""EdgeService: the same domain as over HTTP, by gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tollmesh.auth.v1 import auth_pb2
from tollmesh.edge.v1 import edge_pb2 as pb

from services.auth.errors import CredentialMissingError, ScopeMissingError
from services.chain.errors import (
    CidInvalidError,
    NetworkNotFoundError,
    ObjectCorruptError,
    ObjectNotFoundError,
    PublicationNotFoundError,
    RangeNotSatisfiableError,
    UploadIncompleteError,
)
from services.credits.errors import InsufficientCreditError
from services.edge.errors import PinCapacityExhaustedError, PinNotFoundError, RateLimitedError
from services.rpc.errors import InvalidArgumentError, RequestIdReusedError, ServiceError
from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.fake_chain import NETWORK, cid_of


async def read(
    edge: RunningEdge, tenant: Tenant, cid: str, offset: int = 0, length: int | None = None
) -> tuple[pb.ReadObjectHeader, bytes]:
    request = pb.ReadObjectRequest(network=NETWORK, cid=cid, offset=offset, length=length)
    answers = [a async for a in edge.stub.ReadObject(request, metadata=tenant.metadata)]
    assert [answer.WhichOneof("part") for answer in answers[:1]] == ["header"]
    return answers[0].header, b"".join(answer.data for answer in answers[1:])


async def upload(
    edge: RunningEdge,
    tenant: Tenant,
    data: bytes,
    request_id: str = "u1",
    size_bytes: int | None = None,
) -> pb.UploadObjectResponse:
    header = pb.UploadObjectHeader(
        network=NETWORK,
        name="n",
        size_bytes=len(data) if size_bytes is None else size_bytes,
        request_id=request_id,
    )

    async def requests() -> AsyncIterator[pb.UploadObjectRequest]:
        yield pb.UploadObjectRequest(header=header)
        for position in range(0, len(data), 500_000):
            yield pb.UploadObjectRequest(data=data[position : position + 500_000])

    return await edge.stub.UploadObject(requests(), metadata=tenant.metadata)


async def test_reading_costs_what_it_costs_over_http(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(1_500_000)
    cid = world.chain.add(data, name="name.txt", media_type="text/plain")
    header, received = await read(edge, tenant, cid)
    assert received == data
    assert header.length_bytes == len(data)
    assert header.cache_status == pb.CACHE_STATUS_MISS
    assert header.object == pb.ObjectInfo(
        network=NETWORK,
        cid=cid,
        size_bytes=len(data),
        name="name.txt",
        media_type="text/plain",
        finalized=True,
    )
    await edge.cached(cid)
    header, received = await read(edge, tenant, cid, 100, 50)
    assert received == data[100:150]
    assert (header.cache_status, header.length_bytes) == (pb.CACHE_STATUS_HIT, 50)
    assert header.object.cached
    assert (await read(edge, tenant, cid, 1_499_990))[1] == data[-10:]
    assert (await read(edge, tenant, cid, 0, 0))[1] == b""
    answer = await edge.get(object_path(cid), tenant)
    assert answer.headers["Cache-Status"].startswith('"test"; hit')
    assert await tenant.paid_bytes() == [1_500_000, 50, 10, 1_500_000]


async def test_a_stat_is_free(world: World, edge: RunningEdge, tenant: Tenant) -> None:
    cid = world.chain.add(b"hello")
    request = pb.StatObjectRequest(network=NETWORK, cid=cid)
    found = (await edge.stub.StatObject(request, metadata=tenant.metadata)).object
    assert (found.size_bytes, found.cached, found.pinned) == (5, False, False)
    reader = await world.tenant(credit=0, scopes=(auth_pb2.SCOPE_READ,))
    assert (await edge.stub.StatObject(request, metadata=reader.metadata)).object.cid == cid
    assert await tenant.paid() == []


async def test_an_upload_is_stored_and_paid_once(edge: RunningEdge, tenant: Tenant) -> None:
    data = some_bytes(1_200_000)
    answers = [await upload(edge, tenant, data) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0] == pb.UploadObjectResponse(
        network=NETWORK,
        cid=cid_of(data),
        size_bytes=len(data),
        state=pb.UPLOAD_STATE_PENDING,
        amount=4688,
        currency="credit",
    )
    assert await tenant.paid_bytes() == [len(data)]
    request = pb.GetUploadStatusRequest(network=NETWORK, cid=cid_of(data))
    status = await edge.stub.GetUploadStatus(request, metadata=tenant.metadata)
    assert (status.state, status.nodes_total) == (pb.UPLOAD_STATE_PENDING, 1)
    assert status.update_time.seconds > 0


async def test_pins_are_the_same_as_over_http(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(10_000))
    request = pb.PinObjectRequest(request_id="p1", network=NETWORK, cid=cid)
    answer = await edge.stub.PinObject(request, metadata=tenant.metadata)
    assert (answer.amount, answer.currency, answer.object.pinned) == (10, "credit", True)
    assert answer.object.cached
    again = await edge.stub.PinObject(request, metadata=tenant.metadata)
    assert again.amount == 10, "the first answer again"
    over_http = await edge.get(f"/pins/{NETWORK}/{cid}", tenant, "PUT")
    assert (over_http.status, over_http.json()["amount"]) == (200, 0)
    gone = pb.UnpinObjectRequest(request_id="p2", network=NETWORK, cid=cid)
    for _ in range(2):
        await edge.stub.UnpinObject(gone, metadata=tenant.metadata)
    other = pb.UnpinObjectRequest(request_id="p3", network=NETWORK, cid=cid)
    with pytest.raises(PinNotFoundError):
        await edge.stub.UnpinObject(other, metadata=tenant.metadata)


ABSENT = cid_of(b"absent")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda edge, tenant, _: read(edge, tenant, ABSENT), ObjectNotFoundError),
        (lambda edge, tenant, _: read(edge, tenant, "nonsense"), CidInvalidError),
        (lambda edge, tenant, cid: read(edge, tenant, cid, 6), RangeNotSatisfiableError),
        (lambda edge, tenant, cid: read(edge, tenant, cid, 5), RangeNotSatisfiableError),
        (lambda edge, tenant, cid: read(edge, tenant, cid, -1), InvalidArgumentError),
        (
            lambda edge, tenant, _: edge.stub.StatObject(
                pb.StatObjectRequest(network="nowhere", cid=ABSENT), metadata=tenant.metadata
            ),
            NetworkNotFoundError,
        ),
        (
            lambda edge, tenant, cid: edge.stub.GetUploadStatus(
                pb.GetUploadStatusRequest(network=NETWORK, cid=cid), metadata=tenant.metadata
            ),
            PublicationNotFoundError,
        ),
        (
            lambda edge, _, cid: edge.stub.StatObject(
                pb.StatObjectRequest(network=NETWORK, cid=cid)
            ),
            CredentialMissingError,
        ),
        (
            lambda edge, tenant, _: upload(edge, tenant, b"12345", size_bytes=6),
            UploadIncompleteError,
        ),
        (
            lambda edge, tenant, _: upload(edge, tenant, b"12345", size_bytes=4),
            UploadIncompleteError,
        ),
    ],
)
async def test_a_refusal_has_the_class_of_its_reason(
    world: World,
    edge: RunningEdge,
    tenant: Tenant,
    call: Callable[[RunningEdge, Tenant, str], Any],
    error: type[ServiceError],
) -> None:
    cid = world.chain.add(b"hello")
    with pytest.raises(error):
        await call(edge, tenant, cid)
    assert await tenant.paid() == []


async def test_money_and_limits_refuse_too(world: World, tenant: Tenant) -> None:
    cid = world.chain.add(some_bytes(10_000))
    poor = await world.tenant(credit=1)
    narrow = await world.tenant(scopes=(auth_pb2.SCOPE_PIN,))
    async with world.edge(pin_bytes=9_999) as edge:
        with pytest.raises(InsufficientCreditError) as refusal:
            await read(edge, poor, cid)
        assert refusal.value.metadata["available"] == "1"
        with pytest.raises(ScopeMissingError):
            await read(edge, narrow, cid)
        request = pb.PinObjectRequest(request_id="p1", network=NETWORK, cid=cid)
        with pytest.raises(PinCapacityExhaustedError):
            await edge.stub.PinObject(request, metadata=tenant.metadata)
        await upload(edge, tenant, b"hello", "same")
        with pytest.raises(RequestIdReusedError):
            await upload(edge, tenant, b"other!", "same")


async def test_an_upload_without_its_header_first_is_refused(
    edge: RunningEdge, tenant: Tenant
) -> None:
    async def requests() -> AsyncIterator[pb.UploadObjectRequest]:
        yield pb.UploadObjectRequest(data=b"hello")

    with pytest.raises(UploadIncompleteError):
        await edge.stub.UploadObject(requests(), metadata=tenant.metadata)


async def test_both_faces_count_an_accounts_requests_together(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(10_000))
    world.chain.objects[cid].pause(at=0)
    over_http = [asyncio.create_task(edge.get(object_path(cid), tenant)) for _ in range(60)]
    over_grpc = [asyncio.create_task(read(edge, tenant, cid)) for _ in range(60)]
    await until(lambda: sum(each.done() for each in (*over_http, *over_grpc)) >= 20)
    world.chain.objects[cid].resume()
    http = [answer.status for answer in await asyncio.gather(*over_http)]
    grpc = await asyncio.gather(*over_grpc, return_exceptions=True)
    refused = http.count(429) + sum(isinstance(each, RateLimitedError) for each in grpc)
    assert refused >= 20
    assert len(await tenant.paid_bytes()) == 120 - refused


async def test_a_failed_fill_breaks_a_stream_off_after_what_is_right(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(1_000_000)
    cid = world.chain.add(data)
    world.chain.objects[cid].failures = [(600_000, ObjectCorruptError())]
    received = bytearray()
    with pytest.raises(ObjectCorruptError):
        await read_into(received, edge, tenant, cid)
    assert received == data[:600_000]
    assert await tenant.paid_bytes() == [600_000]


async def read_into(received: bytearray, edge: RunningEdge, tenant: Tenant, cid: str) -> None:
    request = pb.ReadObjectRequest(network=NETWORK, cid=cid)
    async for answer in edge.stub.ReadObject(request, metadata=tenant.metadata):
        received += answer.data
