"""What follows a request on its connection and is not HTTP does not get into its answer."""

from __future__ import annotations

import asyncio

from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.deadline import DEADLINE_S
from tests.support.http_answers import answers_in

SIZE = 300_000


async def test_an_answer_under_way_is_not_cut_into_by_a_refusal(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(SIZE)
    cid = world.chain.add(data)
    world.chain.objects[cid].pause(at=SIZE // 2)
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    head = f"GET {object_path(cid)} HTTP/1.1\r\nHost: e\r\nX-API-Key: {tenant.key}\r\n\r\n"
    writer.write(head.encode())
    received = await reader.readexactly(SIZE // 3)
    writer.write(b"\x00 garbage\r\n\r\n" + head.encode())
    await writer.drain()
    [protocol] = edge.edge.http._server.server_state.connections
    await until(lambda: protocol._is_deaf, "the garbage has arrived")  # type: ignore[union-attr]  # ours
    world.chain.objects[cid].resume()
    received += await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()
    [answer] = answers_in(received)
    assert (answer.status, answer.body == data, answer.whole) == (200, True, True)
    assert await tenant.paid_bytes() == [SIZE]


async def test_what_is_not_http_is_refused_with_a_problem(edge: RunningEdge) -> None:
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    writer.write(b"GET / HTTP/1.1\r\nno colon\r\n\r\n")
    [answer] = answers_in(await asyncio.wait_for(reader.read(), DEADLINE_S))
    writer.close()
    assert answer.status == 400
    assert answer.fields[b"content-type"] == b"application/problem+json"
    assert answer.fields[b"connection"] == b"close"


async def test_a_hit_under_way_is_not_cut_into_either(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(8 * 1024 * 1024)
    cid = world.chain.add(data)
    head = f"GET {object_path(cid)} HTTP/1.1\r\nHost: e\r\nX-API-Key: {tenant.key}\r\n\r\n".encode()
    for _ in range(3):  # from the third on it is paid out of a lease, and answered at once
        await edge.get(object_path(cid), tenant)
        await edge.cached(cid)
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    writer.write(head)
    received = await reader.readexactly(1000)
    writer.write(b"\x00 garbage\r\n\r\n" + head)
    await writer.drain()
    received += await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()
    [answer] = answers_in(received)
    assert (answer.status, answer.body == data, answer.whole) == (200, True, True)
