"""What is paid for answers of origins: the bytes of bodies that left, and nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from tollmesh.credits.v1 import credits_pb2

from tests.edge.conftest import World, until
from tests.edge.origins.conftest import Fronted
from tests.support.http_origin import HttpOrigin, Request, answer, head

CACHEABLE = {"cache_control": "max-age=60"}
LARGE = os.urandom(8 * 1024 * 1024)


@pytest.fixture
def options() -> dict[str, Any]:
    return {"estimate_bytes": 1000}


async def chunked(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(head(200, {"transfer-encoding": "chunked", "cache-control": "max-age=60"}))
    for size in (1, 10, 5000, 70_000):
        writer.write(b"%x\r\n%s\r\n" % (size, b"x" * size))
    writer.write(b"0\r\n\r\n")


async def test_who_pays_is_told_the_cost_and_nobody_else(fronted: Fronted, world: World) -> None:
    reader = await world.tenant()
    fronted.origin.on("/a", answer(200, b"12345", **CACHEABLE))
    for _ in range(2):
        assert "tollmesh-available" not in (await fronted.get("/a")).headers
        told = (await fronted.get("/a", x_api_key=reader.key)).headers
        assert int(told["tollmesh-cost"]) >= 1
        assert int(told["tollmesh-available"]) > 0


async def test_misses_and_hits_are_paid_at_their_prices(fronted: Fronted) -> None:
    fronted.origin.on("/a", answer(200, b"12345", **CACHEABLE))
    for _ in range(3):
        assert (await fronted.get("/a")).body == b"12345"
    paid = await fronted.sponsor.paid()
    assert [entry.metered.quantity for entry in paid] == [5, 5, 5]
    assert [entry.metered.cache_result for entry in paid] == [
        credits_pb2.CACHE_RESULT_MISS,
        credits_pb2.CACHE_RESULT_HIT,
        credits_pb2.CACHE_RESULT_HIT,
    ]
    assert {entry.resource for entry in paid} == {"origins/site/a"}


async def test_a_body_of_unknown_length_is_paid_to_the_byte(fronted: Fronted) -> None:
    fronted.origin.on("/a", chunked)
    assert len((await fronted.get("/a")).body) == 75_011
    assert len((await fronted.get("/a")).body) == 75_011
    assert await fronted.sponsor.paid_bytes() == [75_011, 75_011]


async def test_a_body_that_is_not_stored_is_paid_to_the_byte(fronted: Fronted) -> None:
    async def unstored(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {"transfer-encoding": "chunked", "cache-control": "no-store"}))
        writer.write(b"5\r\nhello\r\n0\r\n\r\n")

    fronted.origin.on("/a", unstored)
    assert (await fronted.get("/a")).body == b"hello"
    fronted.origin.on("/b", answer(201, b"made"))
    assert (await fronted.get("/b", "POST")).status == 201
    assert await fronted.sponsor.paid_bytes() == [5, 4]


async def test_what_has_no_body_is_free(fronted: Fronted) -> None:
    fronted.origin.on("/a", answer(200, b"12345", etag='"1"', **CACHEABLE))
    await fronted.get("/a", "HEAD")
    fronted.origin.on("/none", answer(204, b"", **CACHEABLE))
    await fronted.get("/none")
    await fronted.get("/a")
    assert (await fronted.get("/a", if_none_match='"1"')).status == 304
    assert (await fronted.get("/a", range="bytes=9-")).status == 416
    await fronted.origin.stop()
    assert (await fronted.get("/other")).status == 502
    assert await fronted.sponsor.paid_bytes() == [5]


async def test_a_part_pays_for_the_part(fronted: Fronted) -> None:
    fronted.origin.on("/a", answer(200, b"1234567890", **CACHEABLE))
    await fronted.get("/a")
    assert (await fronted.get("/a", range="bytes=2-4")).body == b"345"
    assert await fronted.sponsor.paid_bytes() == [10, 3]


async def test_bodies_of_requests_are_paid_for_where_that_is_wanted(
    world: World, origin: HttpOrigin
) -> None:
    payer = await world.tenant()
    origin.on("/a", answer(200, b"done"))
    site = {"url": origin.url, "sponsor": payer.account_id, "meter_uploads": True}
    async with world.edge(origins={"site": site}) as edge:
        async with edge.session.put("/origins/site/a", data=b"123456789") as response:
            assert await response.read() == b"done"
        paid = {entry.metered.meter: entry.metered.quantity for entry in await payer.paid()}
        assert paid == {"download": 4, "upload": 9}

        async def pieces() -> AsyncIterator[bytes]:
            yield b"of unknown length"

        async with edge.session.put("/origins/site/a", data=pieces()) as response:
            assert response.status == 411


async def test_without_credit_nothing_is_fetched(world: World, origin: HttpOrigin) -> None:
    poor = await world.tenant(credit=0)
    origin.on("/a", answer(200, b"body"))
    async with world.edge(
        origins={"site": {"url": origin.url, "sponsor": poor.account_id}}
    ) as edge:
        for method in ("GET", "POST"):
            refused = await edge.get("/origins/site/a", None, method)
            assert refused.status == 402
            assert refused.json()["metadata"] == {}  # whoever asks, it is not their balance
    assert origin.requests == []


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("kept", ["max-age=60", "no-store"])
async def test_a_reader_that_leaves_pays_for_what_its_machine_has(
    fronted: Fronted, framing: str, kept: str
) -> None:
    async def large(_: Request, writer: asyncio.StreamWriter) -> None:
        fields = {"cache-control": kept}
        if framing == "length":
            writer.write(head(200, fields | {"content-length": str(len(LARGE))}) + LARGE)
        else:
            writer.write(head(200, fields | {"transfer-encoding": "chunked"}))
            writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(LARGE), LARGE))

    fronted.origin.on("/a", large)
    reader, writer = await asyncio.open_connection(
        fronted.edge.host, fronted.edge.port, limit=64 * 1024
    )
    writer.write(b"GET /origins/site/a HTTP/1.1\r\nHost: edge\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    got = len(await reader.readexactly(1_000_000))
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()

    async def paid() -> bool:
        return len(await fronted.sponsor.paid_bytes()) == 1

    await until(paid)
    (quantity,) = await fronted.sponsor.paid_bytes()
    # What the kernels held on the way is the reader's too; the framing of chunks is not.
    assert got - 2000 <= quantity < len(LARGE)


async def test_credit_that_ends_in_the_middle_breaks_the_answer_off(
    world: World, origin: HttpOrigin
) -> None:
    poor = await world.tenant(credit=50)
    gate = asyncio.Event()

    async def growing(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {"transfer-encoding": "chunked", "cache-control": "max-age=60"}))
        writer.write(b"%x\r\n%s\r\n" % (5000, b"x" * 5000))
        await writer.drain()
        await gate.wait()
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (70_000, b"x" * 70_000))

    origin.on("/a", growing)
    site = {"url": origin.url, "sponsor": poor.account_id, "estimate_bytes": 100}
    async with (
        world.edge(origins={"site": site}) as edge,
        edge.session.get("/origins/site/a") as response,
    ):
        await response.content.readexactly(5000)
        gate.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
        assert await poor.paid_bytes() == [5000]
