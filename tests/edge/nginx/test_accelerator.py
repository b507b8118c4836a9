"""nginx before an edge, with deploy/nginx/accelerator.conf: nginx sends what is in the cache."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from tollmesh.auth.v1 import auth_pb2

from services.chain.errors import NetworkUnavailableError
from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.edge.nginx.conftest import PREFIX, SECRET, Front, client_of
from tests.support.fake_chain import NETWORK
from tests.support.nginx import running_nginx
from tests.support.raw_reader import open_reader

SIZE = 300_000


@pytest.fixture
async def cid(world: World, accelerated: Front, tenant: Tenant) -> str:
    """An object that is in the cache."""
    cid = world.chain.add(some_bytes(SIZE))
    await accelerated.get(object_path(cid), tenant)
    await accelerated.edge.cached(cid)
    await until(lambda: paid_times(tenant, 1))
    return cid


def data_of(world: World, cid: str) -> bytes:
    return world.chain.objects[cid].data


async def paid_times(tenant: Tenant, count: int) -> bool:
    return len(await tenant.paid_bytes()) == count


def sent_by_nginx(edge: RunningEdge) -> int:
    """How many files are handed over now."""
    return len(edge.edge.disk.loans)


async def test_a_miss_comes_from_the_edge_and_is_paid_by_the_log(
    world: World, accelerated: Front, tenant: Tenant
) -> None:
    data = some_bytes(SIZE)
    answer = await accelerated.get(object_path(world.chain.add(data)), tenant)
    assert (answer.status, answer.body) == (200, data)
    assert answer.headers["Cache-Status"] == '"test"; fwd=uri-miss; stored'
    assert "Tollmesh-Ticket" not in answer.headers
    assert await tenant.paid_bytes() == [SIZE]


async def test_a_hit_is_sent_by_nginx_and_paid_by_the_log(
    world: World, accelerated: Front, tenant: Tenant, cid: str
) -> None:
    answer = await accelerated.get(object_path(cid), tenant)
    assert (answer.status, answer.body) == (200, data_of(world, cid))
    assert answer.headers["Cache-Status"] == '"test"; hit; detail=disk'
    assert "X-Accel-Redirect" not in answer.headers
    assert await tenant.paid_bytes() == [SIZE, SIZE]
    assert sent_by_nginx(accelerated.edge) == 0


async def test_its_headers_are_those_of_the_edge(
    accelerated: Front, tenant: Tenant, cid: str
) -> None:
    fields = {"Origin": "https://app.example", "Want_Repr_Digest": "sha-256=1"}
    by_nginx = (await accelerated.get(object_path(cid), tenant, **fields)).headers
    by_edge = (await accelerated.edge.get(object_path(cid), tenant, **fields)).headers
    differing = {"date", "server", "connection", "x-request-id", "tollmesh-available", "age"}
    same = {name.lower() for name in by_edge} - differing
    assert {name.lower() for name in by_nginx} - differing == same
    for name in same - {"cache-status"}:
        assert by_nginx.getall(name) == by_edge.getall(name), name
    assert "Last-Modified" not in by_nginx


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ("bytes=0-99", 206),
        ("bytes=100-", 206),
        ("bytes=-500", 206),
        (f"bytes=0-{2 * SIZE}", 206),
        (f"bytes=-{2 * SIZE}", 206),
        ("bytes=0-0,-1", 206),
        ("bytes=5-2", 200),
        ("bytes=", 200),
        ("BYTES=1-2", 206),
        ("bits=1-2", 200),
        (f"bytes={SIZE}-", 416),
        ("bytes=-0", 416),
    ],
)
async def test_ranges_are_as_the_edge_has_them(
    accelerated: Front, tenant: Tenant, cid: str, wanted: str, status: int
) -> None:
    by_nginx = await accelerated.get(object_path(cid), tenant, Range=wanted)
    by_edge = await accelerated.edge.get(object_path(cid), tenant, Range=wanted)
    assert by_nginx.status == by_edge.status == status
    fields = "Content-Range", "Content-Length", "ETag"
    assert [by_nginx.headers.get(name) for name in fields] == [
        by_edge.headers.get(name) for name in fields
    ]
    if status < 400 and "," not in wanted:
        assert by_nginx.body == by_edge.body
    count = 1 + 2 * (status < 400)
    await until(lambda: paid_times(tenant, count))
    assert sum(await tenant.paid_bytes()) == SIZE + (2 * len(by_nginx.body)) * (status < 400)


async def test_conditions_are_as_the_edge_has_them(
    world: World, accelerated: Front, tenant: Tenant, cid: str
) -> None:
    async def status(**fields: str) -> int:
        answer = await accelerated.get(object_path(cid), tenant, **fields)
        if answer.status == 200:
            assert answer.body == data_of(world, cid)
        return answer.status

    tag, date = f'"{cid}"', "Thu, 01 Jan 2037 00:00:00 GMT"
    assert await status(If_None_Match=tag) == 304
    assert await status(If_None_Match="*") == 304
    assert await status(If_None_Match='"other"') == 200
    assert await status(If_None_Match='"other"', If_Modified_Since=date) == 200
    assert await status(If_Modified_Since=date) == 200
    assert await status(If_Unmodified_Since="Thu, 01 Jan 1970 00:00:00 GMT") == 200
    assert await status(If_Match=tag) == 200
    assert await status(If_Match="*") == 200
    assert await status(If_Match='"other"') == 412
    assert await status(If_Range=tag, Range="bytes=0-9") == 206
    assert await status(If_Range='"other"', Range="bytes=0-9") == 200
    assert await status(If_Range=date, Range="bytes=0-9") == 200
    head = await accelerated.get(object_path(cid), tenant, "HEAD")
    assert (head.status, head.headers["Content-Length"]) == (200, str(SIZE))
    await until(lambda: accelerated.edge.edge.door.open_tickets == 0)
    paid = await tenant.paid_bytes()
    assert sorted(paid) == [10] + [SIZE] * 9


async def test_refusals_come_from_the_edge(
    world: World, accelerated: Front, tenant: Tenant, cid: str
) -> None:
    path = object_path(cid)
    assert (await accelerated.get(path)).status == 401
    poor = await world.tenant(credit=0)
    answer = await accelerated.get(path, poor)
    assert answer.status == 402
    assert answer.json()["reason"] == "INSUFFICIENT_CREDIT"
    barred = await world.tenant(scopes=(auth_pb2.SCOPE_PIN,))
    assert (await accelerated.get(path, barred)).status == 403
    absent = await accelerated.get(object_path(world.chain.add(b"x")[:-1] + "a"), tenant)
    assert absent.status in {400, 404}
    assert (await accelerated.get("/door/authorize", tenant)).status == 404
    assert (await accelerated.get(PREFIX + "00/file", tenant)).status == 404
    assert await tenant.paid_bytes() == [SIZE]


async def test_only_nginx_is_told_of_files(
    world: World, accelerated: Front, tenant: Tenant, cid: str
) -> None:
    edge = accelerated.edge
    for front in ("wrong", ""):
        answer = await edge.get(
            object_path(cid), tenant, Tollmesh_Accel="redirect", Tollmesh_Front=front
        )
        assert "X-Accel-Redirect" not in answer.headers
        assert answer.body == data_of(world, cid)
    answer = await accelerated.get(
        object_path(cid), tenant, Tollmesh_Front="mine", Tollmesh_Accel="missing x"
    )
    assert answer.body == data_of(world, cid)
    await until(lambda: paid_times(tenant, 4))


async def test_a_file_that_somebody_removed_is_fetched_anew(
    world: World, accelerated: Front, tenant: Tenant, cid: str
) -> None:
    shutil.rmtree(world.directory / "edge" / "objects")
    (world.directory / "edge" / "objects").mkdir()
    for _ in range(2):
        answer = await accelerated.get(object_path(cid), tenant)
        assert (answer.status, answer.body) == (200, data_of(world, cid))
        assert answer.headers["ETag"] == f'"{cid}"'
    await until(lambda: paid_times(tenant, 3))
    assert await tenant.paid_bytes() == [SIZE] * 3
    assert accelerated.edge.edge.door.open_tickets == 0


async def test_a_file_on_its_way_is_not_forgotten(
    world: World, nginx_home: Path, front_settings: dict[str, Any], tenant: Tenant
) -> None:
    size = 8 * 1024 * 1024
    async with (
        world.edge(
            **front_settings,
            accel_prefix=PREFIX,
            disk_bytes=size + 1000,
            pin_bytes=0,
            memory_bytes=0,
        ) as edge,
        running_nginx(
            "accelerator.conf",
            nginx_home,
            edge=edge.edge.http.address,
            secret=SECRET,
            cache_dir=world.directory / "edge",
        ) as nginx,
        client_of(nginx, edge) as front,
    ):
        cid, other = world.chain.add(some_bytes(size)), world.chain.add(some_bytes(2000))
        await front.get(object_path(cid), tenant)
        await edge.cached(cid)
        reader = await open_reader("127.0.0.1", nginx.port, object_path(cid), tenant.headers)
        bypassed = await front.get(object_path(other), tenant)
        assert bypassed.headers["Cache-Status"] == '"test"; fwd=uri-miss; detail=no-room'
        assert edge.edge.disk.info(cid) is not None
        await asyncio.to_thread(reader.read, size)
        await until(lambda: sent_by_nginx(edge) == 0, "the report gives the file back")
        await front.get(object_path(other), tenant)
        await edge.cached(other)
        assert edge.edge.disk.info(cid) is None
        reader.close()


async def test_while_the_edge_is_down_it_is_503(
    accelerated: Front, tenant: Tenant, cid: str
) -> None:
    await accelerated.edge.stop()
    answer = await accelerated.get(object_path(cid), tenant)
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["reason"] == "DEPENDENCY_UNAVAILABLE"


async def test_who_leaves_early_pays_what_was_sent(
    world: World, accelerated: Front, tenant: Tenant
) -> None:
    size = 8 * 1024 * 1024
    cid = world.chain.add(some_bytes(size))
    await accelerated.get(object_path(cid), tenant)
    await accelerated.edge.cached(cid)
    await until(lambda: paid_times(tenant, 1))
    reader = await open_reader(
        "127.0.0.1", accelerated.nginx.port, object_path(cid), tenant.headers
    )
    await asyncio.to_thread(reader.read, 200_000)
    arrived = await asyncio.to_thread(reader.arrived)
    reader.close()
    await until(lambda: paid_times(tenant, 2))
    assert arrived <= (await tenant.paid_bytes())[1] < size


async def test_what_has_ended_takes_no_place_among_requests_in_flight(
    accelerated: Front, tenant: Tenant, cid: str
) -> None:
    assert await accelerated.many(object_path(cid), tenant, 400, 20) == {200}
    await until(lambda: accelerated.edge.edge.door.open_tickets == 0)


async def test_hits_out_of_a_lease_are_paid_to_the_byte(
    world: World, nginx_home: Path, front_settings: dict[str, Any]
) -> None:
    rich = await world.tenant(credit=10**12)
    async with (
        world.edge(**front_settings, accel_prefix=PREFIX, lease_credits=10**9) as edge,
        running_nginx(
            "accelerator.conf",
            nginx_home,
            edge=edge.edge.http.address,
            secret=SECRET,
            cache_dir=world.directory / "edge",
        ) as nginx,
        client_of(nginx, edge) as front,
    ):
        cid = world.chain.add(some_bytes(SIZE))
        await front.get(object_path(cid), rich)
        await edge.cached(cid)
        assert await front.many(object_path(cid), rich, 300, 3) == {200}
        await until(lambda: edge.edge.door.open_tickets == 0)
        answer = await front.get(object_path(cid), rich)
        assert (answer.body, answer.headers["ETag"]) == (data_of(world, cid), f'"{cid}"')
        assert answer.headers["Cache-Status"] == '"test"; hit; detail=disk'
        await until(lambda: edge.edge.door.open_tickets == 0)
        assert len(edge.edge.disk.loans) == 0
    assert sum(await rich.paid_bytes()) == 302 * SIZE


async def test_uploads_go_through(accelerated: Front, tenant: Tenant) -> None:
    data, path = some_bytes(SIZE), f"/objects/{NETWORK}?name=a.bin"
    async with accelerated.session.post(path, data=data, headers=tenant.headers) as response:
        assert response.status == 201
    [paid] = await tenant.paid()
    assert (paid.metered.meter, paid.metered.quantity) == ("upload", SIZE)


async def test_who_leaves_a_miss_early_pays_what_nginx_sent(
    world: World, accelerated: Front, tenant: Tenant
) -> None:
    size = 8 * 1024 * 1024
    cid = world.chain.add(some_bytes(size))
    reader = await open_reader(
        "127.0.0.1", accelerated.nginx.port, object_path(cid), tenant.headers
    )
    await asyncio.to_thread(reader.read, 200_000)
    arrived = await asyncio.to_thread(reader.arrived)
    reader.close(reset=True)
    await until(lambda: accelerated.edge.edge.door.open_tickets == 0)
    [paid] = await tenant.paid_bytes()
    # The kernel takes all of a write (proxy_buffer_size) as long as there is room for some of it.
    assert arrived <= paid <= arrived + 2 * 256 * 1024 + 16 * 1024


async def test_a_fetch_that_fails_is_a_problem_and_costs_nothing(
    world: World, accelerated: Front, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    world.chain.objects[cid].failures += [(0, NetworkUnavailableError())] * 9
    answer = await accelerated.get(object_path(cid), tenant)
    assert (answer.status, answer.json()["reason"]) == (503, "NETWORK_UNAVAILABLE")
    await until(lambda: accelerated.edge.edge.door.open_tickets == 0)
    assert await tenant.paid_bytes() == []
