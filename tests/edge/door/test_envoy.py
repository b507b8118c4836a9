"""A real Envoy with the deployed configuration: admits, delivers, and bills what it sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
from tollmesh.auth.v1 import auth_pb2
from yarl import URL

from services.edge.admission import DOWNLOAD, Client
from tests.edge.conftest import TERMS, RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.envoy_proxy import EnvoyProxy, running_envoy
from tests.support.file_server import FileServer
from tests.support.http2_peer import Http2Peer
from tests.support.raw_reader import open_reader

KIBIBYTE = 1024


async def paid_in_all(tenant: Tenant, count: int) -> list[int]:
    """What so many deliveries cost, once they are reported: bytes of each, by size."""

    async def reported() -> bool:
        return (await tenant.balance()).held == 0 and len(await tenant.paid()) == count

    await until(reported, f"{count} deliveries are paid")
    return sorted(await tenant.paid_bytes())


async def test_what_a_reader_gets_is_paid_to_the_byte(
    proxy: EnvoyProxy, reader: aiohttp.ClientSession, files: FileServer, tenant: Tenant
) -> None:
    data = some_bytes(300_001)
    path = files.add("film", data)
    async with reader.get(path, headers=tenant.headers) as response:
        assert response.status == 200
        assert await response.read() == data
    partial = {**tenant.headers, "Range": "bytes=-1000"}
    async with reader.get(path, headers=partial) as response:
        assert response.status == 206
        assert await response.read() == data[-1000:]
    assert await paid_in_all(tenant, 2) == [1000, 300_001]
    assert {entry.resource for entry in await tenant.paid()} == {f"{proxy.address}/film"}


async def test_over_http2_too(proxy: EnvoyProxy, files: FileServer, tenant: Tenant) -> None:
    data = some_bytes(200_000)
    path = files.add("film", data)
    asked = {":method": "GET", ":scheme": "http", ":path": path, ":authority": "films.example"}
    async with Http2Peer.connected(proxy.address) as peer:
        streams = [await peer.start({**asked, "x-api-key": tenant.key}, end=True) for _ in range(3)]
        for stream in streams:
            answer = await peer.answer(stream)
            assert (answer.http_status, answer.body) == (200, data)
    assert await paid_in_all(tenant, 3) == [200_000] * 3


async def test_the_upstream_learns_the_account_and_no_credential(
    reader: aiohttp.ClientSession, files: FileServer, tenant: Tenant
) -> None:
    path = files.add("film", b"x")
    forged = {"Tollmesh-Account": "acc-of-another", "X-API-Key": tenant.key}
    async with reader.get(path, headers=tenant.headers | forged) as response:
        assert response.status == 200
    [(_, _, headers)] = files.seen
    assert headers["tollmesh-account"] == tenant.account_id
    assert "authorization" not in headers
    assert "x-api-key" not in headers
    await paid_in_all(tenant, 1)


async def test_credentials_stay_where_a_setting_says_so(
    world: World, files: FileServer, tenant: Tenant, tmp_path: Path
) -> None:
    path = files.add("film", b"x")
    async with (
        world.edge(keep_credentials=True) as edge,
        running_envoy(tmp_path, edge=edge.edge.grpc.address, files=files.address) as proxy,
        aiohttp.ClientSession(proxy.url) as reader,
        reader.get(path, headers=tenant.headers) as response,
    ):
        assert response.status == 200
        await response.read()
        assert files.seen[0][2]["authorization"] == tenant.headers["Authorization"]
        await paid_in_all(tenant, 1)


async def test_refusals_are_problems_as_from_the_edge_itself(
    world: World, reader: aiohttp.ClientSession, files: FileServer
) -> None:
    path = files.add("film", some_bytes(1000))
    poor = await world.tenant(credit=3)
    writer = await world.tenant(scopes=(auth_pb2.SCOPE_UPLOAD,))
    for headers, status, reason in (
        ({}, 401, "CREDENTIAL_MISSING"),
        ({"X-API-Key": "nonsense"}, 401, "CREDENTIAL_MALFORMED"),
        (poor.headers, 402, "INSUFFICIENT_CREDIT"),
        (writer.headers, 403, "SCOPE_MISSING"),
    ):
        async with reader.get(path, headers=headers) as response:
            assert response.status == status
            assert response.content_type == "application/problem+json"
            problem = await response.json()
            assert problem["reason"] == reason
            assert ("WWW-Authenticate" in response.headers) is (status in {401, 403})
    assert files.seen == []
    assert (await poor.balance()).held == 0


async def test_too_many_at_once_is_429_and_no_answer_503(
    world: World,
    edge: RunningEdge,
    reader: aiohttp.ClientSession,
    files: FileServer,
    tenant: Tenant,
) -> None:
    path = files.add("film", b"x")
    caller = await edge.edge.admission.authorize(Client(tenant.key), DOWNLOAD, "")
    for _ in range(TERMS.concurrent_requests):
        edge.edge.admission.occupy(caller)
    async with reader.get(path, headers=tenant.headers) as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "1"
    for _ in range(TERMS.concurrent_requests):
        edge.edge.admission.vacate(caller)
    await world.credit_service.stop()
    async with reader.get(path, headers=tenant.headers) as response:
        assert response.status == 503
        assert "Retry-After" in response.headers
    await edge.stop()
    async with reader.get(path, headers=tenant.headers) as response:
        assert response.status == 503, "nobody to ask: nothing is served"
    assert files.seen == []


async def test_attempts_of_envoy_are_one_delivery(
    reader: aiohttp.ClientSession, files: FileServer, tenant: Tenant
) -> None:
    path = files.add("film", b"x" * 5000)
    files.failures = 2
    async with reader.get(path, headers=tenant.headers) as response:
        assert response.status == 200
        await response.read()
    assert len(files.seen) == 3
    assert await paid_in_all(tenant, 1) == [5000]


async def test_a_readers_request_id_makes_nothing_free(
    reader: aiohttp.ClientSession, files: FileServer, tenant: Tenant
) -> None:
    path = files.add("film", b"x" * 5000)
    headers = tenant.headers | {"X-Request-Id": "1b671a64-40d5-491e-99b0-da01ff1f3341"}

    async def get() -> None:
        async with reader.get(path, headers=headers) as response:
            assert len(await response.read()) == 5000

    await asyncio.gather(*(get() for _ in range(4)))
    assert await paid_in_all(tenant, 4) == [5000] * 4


async def test_what_is_not_there_or_free_costs_nothing(
    reader: aiohttp.ClientSession, files: FileServer, tenant: Tenant
) -> None:
    path, free = files.add("film", b"x" * 5000), files.add("robots.txt", b"y")
    async with reader.get("/nothing", headers=tenant.headers) as response:
        assert response.status == 404
        assert await response.read()
    async with reader.head(path, headers=tenant.headers) as response:
        assert response.status == 200
    async with reader.get(free) as response:
        assert response.status == 200
    async with reader.get(path, headers=tenant.headers | {"If-None-Match": "*"}) as response:
        assert response.status == 304
    assert [headers["tollmesh-account"] for _, path, headers in files.seen if path != free] == [
        tenant.account_id
    ] * 3
    assert await paid_in_all(tenant, 0) == []


async def test_an_upload_pays_for_what_was_received(
    reader: aiohttp.ClientSession, tenant: Tenant
) -> None:
    async with reader.put("/new", data=bytes(70_000), headers=tenant.headers) as response:
        assert (response.status, await response.text()) == (201, "70000")
    await paid_in_all(tenant, 1)
    [entry] = await tenant.paid()
    assert (entry.metered.meter, entry.metered.quantity) == ("upload", 70_000)


async def test_what_a_route_says_of_its_answers_is_set_aside(
    edge: RunningEdge, reader: aiohttp.ClientSession, files: FileServer, world: World
) -> None:
    (files.directory / "previews").mkdir()
    preview, film = files.add("previews/film", b"x" * 100), files.add("film", b"x" * 100)
    poor = await world.tenant(credit=200)  # 65,536 bytes cost 128, a mebibyte 2,048
    async with reader.get(film, headers=poor.headers) as response:
        assert response.status == 402
        assert (await response.json())["metadata"]["needed"] == "2048"
    async with reader.get(preview, headers=poor.headers) as response:
        assert response.status == 200
    assert await paid_in_all(poor, 1) == [100]
    assert edge.edge.door.open_tickets == 0
    url = URL("/previews/%2e%2E/film", encoded=True)
    async with reader.get(url, headers=poor.headers) as response:
        assert response.status == 402, "it is the film that was asked for"


async def test_of_an_object_that_the_edge_knows_the_size_is_set_aside(
    edge: RunningEdge,
    reader: aiohttp.ClientSession,
    files: FileServer,
    world: World,
    tenant: Tenant,
) -> None:
    data = some_bytes(3 * KIBIBYTE)
    cid = world.chain.add(data)
    path = object_path(cid)
    await edge.get(path, tenant)
    await edge.cached(cid)
    (files.directory / path[1:]).parent.mkdir(parents=True)
    files.add(path[1:], data)
    poor = await world.tenant(credit=6)
    async with reader.get(path, headers=poor.headers) as response:
        assert response.status == 200
        assert await response.read() == data
    assert await paid_in_all(poor, 1) == [3 * KIBIBYTE]


async def test_a_long_answer_is_reported_while_it_is_sent(
    world: World, files: FileServer, tenant: Tenant, tmp_path: Path
) -> None:
    size = 8 * KIBIBYTE * KIBIBYTE
    path = files.add("film", bytes(size))
    ends_soon = {"transfer_s": 3, "slowest_bytes_per_s": 1_000_000_000, "unreported": "release"}
    async with (
        world.edge(**ends_soon) as edge,
        running_envoy(tmp_path, edge=edge.edge.grpc.address, files=files.address) as proxy,
    ):
        reader = await open_reader("127.0.0.1", proxy.port, path, tenant.headers)
        await asyncio.to_thread(reader.read, 64 * KIBIBYTE)
        [so_far] = await paid_in_all(tenant, 1)
        assert 64 * KIBIBYTE <= so_far < size, "the ticket ended, and what was reported is paid"
        await asyncio.to_thread(reader.read, size - 64 * KIBIBYTE)
        reader.close()
        assert await paid_in_all(tenant, 2) == sorted([so_far, size - so_far])
