"""Hits that are answered at once: the same answers as the long way, paid to the byte."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from tollmesh.chain.v1 import chain_pb2
from tollmesh.credits.v1 import credits_pb2

from services.edge.credit.holds import Usage
from services.edge.credit.lease_books import Lease
from services.edge.credit.lease_keeper import Keeper
from tests.edge.conftest import (
    TERMS,
    RunningEdge,
    Tenant,
    World,
    object_path,
    some_bytes,
    until,
)
from tests.support.fake_chain import NETWORK, OTHER_NETWORK
from tests.support.kept_connection import KeptConnection, RawAnswer, get_request
from tests.support.raw_reader import RawReader, open_reader
from tests.support.seeds import chosen_seed

MEBIBYTE = 1024 * 1024
LARGE = 8 * MEBIBYTE
TERMS_LIMIT = TERMS.concurrent_requests
LEASES: dict[str, Any] = {"lease_credits": 100_000_000, "lease_settle_s": 0.1}
# A field that no plain GET has: the request goes the long way.
LONG_WAY = {"X-Long-Way": "please"}


@pytest.fixture
async def edge(world: World) -> AsyncIterator[RunningEdge]:
    async with world.edge(**LEASES) as edge:
        yield edge


@pytest.fixture
async def connection(edge: RunningEdge) -> AsyncIterator[KeptConnection]:
    connection = await KeptConnection.open(edge.host, edge.port)
    yield connection
    await connection.close()


def keepers(edge: RunningEdge) -> Mapping[Lease, Keeper]:
    """The edge's leases, and who looks after them."""
    leases = edge.edge.payments._leases
    assert leases is not None
    return leases._keepers


async def warm(edge: RunningEdge, world: World, tenant: Tenant, *cids: str, covers: int = 4) -> int:
    """Brings objects into the cache, a decision to the edge, and a lease; the bytes that it read.

    The lease covers so many of the largest object at once.
    """
    read = 0
    small = world.chain.add(some_bytes(65_536))
    for cid in (small, *cids):
        assert (await edge.get(object_path(cid), tenant)).status == 200
        await edge.cached(cid)
        again = await edge.get(object_path(cid), tenant)  # opens the file, or fills the memory
        read += 2 * len(again.body)
    largest = max(len(world.chain.objects[cid].data) for cid in cids)
    usage = Usage(tenant.account_id, "download", covers * largest, "", credits_pb2.CACHE_RESULT_HIT)

    async def is_covered() -> bool:
        nonlocal read
        read += len((await edge.get(object_path(small), tenant)).body)
        for keeper in keepers(edge).values():
            keeper._size = LEASES["lease_credits"]  # as after much use
        payment = edge.edge.payments.take(usage)
        if payment is not None:
            payment.settle()
        return payment is not None

    await until(is_covered, "the lease covers it")
    return read


async def paid_bytes(edge: RunningEdge, tenant: Tenant) -> int:
    """What the account paid for in all, once the edge has settled everything."""
    await edge.stop()
    return sum(await tenant.paid_bytes())


def comparable(answer: RawAnswer) -> list[tuple[str, str]]:
    """All but what differs between two answers to the same."""
    names = {"date", "x-request-id", "tollmesh-available"}
    # The first of two may have brought the object from the disk into memory.
    fields = [
        (name, value.replace("detail=disk", "detail=memory")) for name, value in answer.fields
    ]
    return [(name, "" if name in names else value) for name, value in fields]


def some_object(world: World, rng: random.Random) -> str:
    """An object of any size, name, type and standing."""
    size = rng.choice([1, 17, 1000, 65_536, 300_000, MEBIBYTE, 2 * MEBIBYTE])
    return world.chain.add(
        rng.randbytes(size),
        name=rng.choice(["", "a.bin", "Straße 1.txt", 'quo"te.html', "../up", "日本.png"]),
        media_type=rng.choice(["", "text/html", "image/svg+xml", "text/plain; charset=utf-8", "x"]),
        finality=rng.choice([chain_pb2.FINALITY_FINALIZED, chain_pb2.FINALITY_LATEST]),
        networks=frozenset({NETWORK, OTHER_NETWORK}),
    )


def some_path(rng: random.Random, cid: str) -> str:
    return rng.choice(
        [
            object_path(cid),
            object_path(cid, OTHER_NETWORK),
            f"/file/{cid}",
            f"/downloads/{cid}",
        ]
    )


def some_headers(rng: random.Random, tenant: Tenant) -> dict[str, str]:
    headers = rng.choice([tenant.headers, {"x-API-key": tenant.key}])
    more = {
        "User-Agent": "test",
        "Accept": "*/*",
        "Accept-Encoding": "gzip, br",
        "Sec-Fetch-Mode": "cors",
        "Cookie": "a=b",
    }
    return headers | {name: more[name] for name in rng.sample(sorted(more), rng.randrange(4))}


async def test_both_ways_give_the_same_answers(
    world: World, edge: RunningEdge, tenant: Tenant, connection: KeptConnection
) -> None:
    rng = random.Random(chosen_seed())
    cids = [some_object(world, rng) for _ in range(12)]
    await warm(edge, world, tenant, *cids)
    quick_ones = 0
    for _ in range(120):
        cid = rng.choice(cids)
        path, headers = some_path(rng, cid), some_headers(rng, tenant)
        before = edge.at_once
        quick = await connection.get(path, headers)
        quick_ones += edge.at_once - before
        before = edge.at_once
        long = await connection.get(path, headers | LONG_WAY)
        assert edge.at_once == before
        assert quick.status == long.status == 200
        assert comparable(quick) == comparable(long)
        assert quick.body == long.body == world.chain.objects[cid].data
    assert quick_ones > 10, "what is not final is asked about now and then"


async def test_the_callers_request_id_is_the_answers(
    world: World, edge: RunningEdge, tenant: Tenant, connection: KeptConnection
) -> None:
    cid = world.chain.add(some_bytes(1000))
    await warm(edge, world, tenant, cid)
    before = edge.at_once
    for name in ("first", "second"):
        answer = await connection.get(
            object_path(cid), tenant.headers | {"X-Request-Id": f"{name}-request"}
        )
        assert answer.field("x-request-id") == f"{name}-request"
    made = {
        (await connection.get(object_path(cid), tenant.headers)).field("x-request-id")
        for _ in range(3)
    }
    assert len(made) == 3
    assert edge.at_once == before + 5


async def test_requests_on_a_connection_may_differ_from_each_other_in_any_way(
    world: World, edge: RunningEdge, tenant: Tenant, connection: KeptConnection
) -> None:
    data = some_bytes(70_000)
    cid, other = world.chain.add(data), world.chain.add(some_bytes(1000))
    stranger = await world.tenant(credit=0)
    path = object_path(cid)
    await warm(edge, world, tenant, cid, other)
    for _ in range(2):
        assert (await connection.get(path, tenant.headers)).body == data
        assert len((await connection.get(object_path(other), tenant.headers)).body) == 1000
        part = await connection.get(path, tenant.headers | {"Range": "bytes=1-3"})
        assert (part.status, part.body) == (206, data[1:4])
        known = await connection.get(path, tenant.headers | {"If-None-Match": f'"{cid}"'})
        assert known.status == 304
        saved = await connection.get(f"{path}?download", tenant.headers)
        assert (saved.field("content-disposition") or "").startswith("attachment")
        assert (await connection.get(path, stranger.headers)).status == 402
        assert (await connection.get(path, {})).status == 401
        assert (await connection.get(f"{path}x", tenant.headers)).status == 400
        head = get_request(path, tenant.headers).replace(b"GET", b"HEAD", 1)
        connection.write(head)
        described = await connection.answer(has_body=False)
        assert described.field("content-length") == str(len(data))
        assert (await connection.get("/healthz", {})).status == 200


async def test_what_looks_like_the_request_before_is_read_to_its_end(
    world: World, edge: RunningEdge, tenant: Tenant, connection: KeptConnection
) -> None:
    data = some_bytes(70_000)
    cid = world.chain.add(data)
    await warm(edge, world, tenant, cid)
    path = object_path(cid)
    usual = get_request(path, tenant.headers)
    assert (await connection.get(path, tenant.headers)).body == data
    first, rest = usual.split(b"\r\n", 1)
    # The same head behind another field; one whose line is cut; two requests in one.
    connection.write(first + b"\r\nRange: bytes=0-0\r\n" + rest)
    assert (await connection.answer()).body == data[:1]
    connection.write(first + b"\r\nRange: bytes=5-5\r\nX-Line: x HTTP/1.1\r\n" + rest)
    assert (await connection.answer()).body == data[5:6]
    connection.write(usual[:30])
    await asyncio.sleep(0)
    connection.write(usual[30:])
    assert (await connection.answer()).body == data
    connection.write(usual + usual)
    assert [(await connection.answer()).body for _ in range(2)] == [data, data]


async def test_requests_that_do_not_wait_are_answered_in_their_order(
    world: World, edge: RunningEdge, tenant: Tenant, connection: KeptConnection
) -> None:
    rng = random.Random(chosen_seed())
    sizes = [1, 1000, 65_536, MEBIBYTE, LARGE]
    cids = [world.chain.add(some_bytes(size)) for size in sizes]
    await warm(edge, world, tenant, *cids)
    before = edge.at_once
    asked = [rng.choice(cids) for _ in range(12)]
    more: dict[str, str] = {}
    for cid in asked:
        connection.write(get_request(object_path(cid), tenant.headers | more))
        more = rng.choice([{}, LONG_WAY])
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    for cid in asked:
        assert (await connection.answer()).body == world.chain.objects[cid].data
    assert edge.at_once > before


async def _read_some(
    edge: RunningEdge, tenant: Tenant, cid: str, count: int
) -> tuple[RawReader, int]:
    reader = await open_reader(edge.host, edge.port, object_path(cid), tenant.headers)
    await asyncio.to_thread(reader.read, count)
    return reader, await asyncio.to_thread(reader.arrived)


async def test_readers_that_leave_pay_for_what_reached_them(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    rng = random.Random(chosen_seed())
    whole, large = world.chain.add(some_bytes(MEBIBYTE)), world.chain.add(some_bytes(LARGE))
    read = await warm(edge, world, tenant, whole, large, covers=20)
    answered = edge.at_once

    async def left(cid: str) -> int:
        size = len(world.chain.objects[cid].data)
        reader, arrived = await _read_some(edge, tenant, cid, rng.randrange(1, size // 2))
        reader.close(reset=rng.random() < 0.5)
        return arrived

    arrived = await asyncio.gather(*(left(rng.choice([whole, large])) for _ in range(20)))
    assert edge.at_once == answered + 20
    # More may arrive while a reader leaves: its socket has room for so much.
    assert 0 <= await paid_bytes(edge, tenant) - read - sum(arrived) <= 20 * 65_536


async def test_a_reader_that_stops_asking_pays_for_what_reached_it(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(LARGE))
    read = await warm(edge, world, tenant, cid)
    reader, _ = await _read_some(edge, tenant, cid, 300_000)
    received = await asyncio.to_thread(reader.read_to_the_end)
    reader.close()
    assert 300_000 <= received < LARGE
    assert await paid_bytes(edge, tenant) == read + received


async def test_a_slow_reader_of_a_large_object_gets_all_of_it(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(LARGE)
    cid = world.chain.add(data)
    read = await warm(edge, world, tenant, cid)
    answered = edge.at_once
    reader, _ = await _read_some(edge, tenant, cid, 1)
    assert edge.at_once == answered + 1
    rest = b"".join([await asyncio.to_thread(reader.read, 99_999) for _ in range(83)])
    assert rest == data[1 : 1 + len(rest)]
    last = await asyncio.to_thread(reader.read, LARGE - 1 - len(rest))
    assert last == data[-len(last) :]
    reader.close()
    assert await paid_bytes(edge, tenant) == read + LARGE


async def test_answers_under_way_have_a_place_in_line(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    large, small = world.chain.add(some_bytes(LARGE)), world.chain.add(some_bytes(1000))
    await warm(edge, world, tenant, small, large, covers=TERMS_LIMIT)
    places = edge.edge.admission
    answered = edge.at_once
    readers = [(await _read_some(edge, tenant, large, 1))[0] for _ in range(TERMS_LIMIT)]
    assert edge.at_once > answered
    refused = await edge.get(object_path(small), tenant)
    assert (refused.status, refused.json()["reason"]) == (429, "RATE_LIMITED")
    readers.pop().close()
    await until(lambda: places._in_flight[tenant.account_id] < TERMS_LIMIT)
    assert (await edge.get(object_path(small), tenant)).status == 200
    for reader in readers:
        reader.close()
    await until(lambda: tenant.account_id not in places._in_flight, "all places are free")


async def test_an_answer_under_way_is_finished_by_a_shutdown(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(LARGE))
    read = await warm(edge, world, tenant, cid)
    answered = edge.at_once
    connection = await KeptConnection.open(edge.host, edge.port)
    assert (await connection.get(object_path(cid), tenant.headers)).status == 200
    reader, _ = await _read_some(edge, tenant, cid, 1)
    assert edge.at_once > answered
    stopping = asyncio.create_task(edge.stop())
    assert await connection.ended() == b"", "a connection without a request is ended"
    await connection.close()
    assert not stopping.done()
    await asyncio.to_thread(reader.read, LARGE - 1)
    assert await asyncio.to_thread(reader.read_to_the_end) == LARGE
    reader.close()
    await stopping
    assert sum(await tenant.paid_bytes()) == read + 2 * LARGE


async def test_a_reader_that_stalls_is_cut_off_by_a_shutdown(world: World, tenant: Tenant) -> None:
    cid = world.chain.add(some_bytes(LARGE))
    async with world.edge(**LEASES, drain_s=1.0) as edge:
        read = await warm(edge, world, tenant, cid)
        reader, arrived = await _read_some(edge, tenant, cid, 1)
        await edge.stop()
        received = await asyncio.to_thread(reader.read_to_the_end)
        reader.close()
    assert arrived <= received < LARGE
    assert sum(await tenant.paid_bytes()) == read + received


async def test_a_reader_that_stalls_is_cut_off_before_its_payment_ends(
    world: World, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(LARGE))
    async with world.edge(**LEASES, slowest_bytes_per_s=2**40) as edge:
        read = await warm(edge, world, tenant, cid)
        for lease in keepers(edge):
            lease.transfer_s = 1.0  # only now: whatever warming takes, it is not cut off
        reader, _ = await _read_some(edge, tenant, cid, 100_000)
        await until(lambda: not edge.edge.admission._in_flight, "the reader is cut off")
        received = await asyncio.to_thread(reader.read_to_the_end)
        reader.close()
        assert 100_000 <= received < LARGE
        assert await paid_bytes(edge, tenant) == read + received


async def test_an_object_that_is_not_in_memory_does_not_hold_up_others(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(LARGE)
    cid = world.chain.add(data)
    await warm(edge, world, tenant, cid)
    mapping = edge.edge.disk.mapped(cid)
    assert mapping is not None
    os.posix_fadvise(mapping.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert (await edge.get(object_path(cid), tenant)).body == data
