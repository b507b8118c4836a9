"""More than an edge can take: refused early and with a reason, and what is served goes on."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from services.edge.http import server
from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.deadline import DEADLINE_S
from tests.support.http_answers import answers_in
from tests.support.service_process import running

MEBIBYTE = 1024 * 1024
IDLE = 1_000
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: e\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _connected(stack: AsyncExitStack, host: str, port: int, count: int) -> list[Streams]:
    made = [await asyncio.open_connection(host, port) for _ in range(count)]
    for _, writer in made:
        stack.push_async_callback(_abort, writer)
    return made


async def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def _asked(streams: Streams) -> bytes:
    """The whole answer to a request for the health of the process."""
    reader, writer = streams
    writer.write(REQUEST)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
    length = re.search(rb"content-length: (\d+)", head)
    assert length, head
    return head + await reader.readexactly(int(length[1]))


async def test_connections_too_many_are_refused_with_a_reason_until_others_end(
    world: World,
) -> None:
    async with world.edge(connections=5) as edge, AsyncExitStack() as stack:
        await edge.session.close()
        first = await _connected(stack, edge.host, edge.port, 5)
        for streams in first:
            assert (await _asked(streams)).startswith(b"HTTP/1.1 200 ")
        [late] = await _connected(stack, edge.host, edge.port, 1)
        refusal = await _asked(late)
        [answer] = answers_in(refusal)
        assert answer.status == 503
        assert b'"reason": "OVERLOADED"' in answer.body
        assert int(answer.fields[b"retry-after"]) >= 1
        assert await late[0].read() == b"", "and the connection ends"
        assert (await _asked(first[0])).startswith(b"HTTP/1.1 200 ")
        first[1][1].close()
        connections = edge.edge.http._server.server_state.connections
        await until(lambda: len(connections) < 5)
        [next_one] = await _connected(stack, edge.host, edge.port, 1)
        assert (await _asked(next_one)).startswith(b"HTTP/1.1 200 ")


async def test_a_connection_too_many_that_asks_nothing_is_cut_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REFUSED_S", 0.1)
    async with world.edge(connections=1) as edge, AsyncExitStack() as stack:
        await edge.session.close()
        [first, late] = await _connected(stack, edge.host, edge.port, 2)
        assert await asyncio.wait_for(_end_of(late), DEADLINE_S) == b""
        assert (await _asked(first)).startswith(b"HTTP/1.1 200 ")


async def _end_of(streams: Streams) -> bytes:
    try:
        return await streams[0].read()
    except ConnectionError:
        return b""


async def test_requests_too_many_are_refused_at_once_while_others_wait(
    world: World, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(1000))
    world.chain.objects[cid].pause(at=0)
    async with world.edge(max_concurrent_calls=20) as edge:
        waiting = [asyncio.create_task(edge.get(object_path(cid), tenant)) for _ in range(20)]
        await until(lambda: edge.edge.admission._in_flight.total() == 20, "twenty wait")
        refused = [await edge.get(object_path(cid), tenant) for _ in range(40)]
        assert Counter(answer.status for answer in refused) == {503: 40}
        assert {answer.json()["reason"] for answer in refused} == {"OVERLOADED"}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert (await edge.get("/healthz")).status == 200
        world.chain.objects[cid].resume()
        assert {(await answer).status for answer in waiting} == {200}


async def test_heads_that_trickle_in_keep_nobody_out_and_end(
    monkeypatch: pytest.MonkeyPatch, edge: RunningEdge
) -> None:
    monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 1.0)
    async with AsyncExitStack() as stack:
        slow = await _connected(stack, edge.host, edge.port, 300)
        for _, writer in slow:
            writer.write(REQUEST[:-4])
        trickling = asyncio.create_task(_trickle(slow))
        for _ in range(20):
            assert (await edge.get("/healthz")).status == 200
        ends = await asyncio.wait_for(asyncio.gather(*map(_end_of, slow)), DEADLINE_S)
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)
    assert set(ends) == {b""}


async def _trickle(connections: list[Streams]) -> None:
    while True:
        for _, writer in connections:
            if not writer.transport.is_closing():
                writer.write(b"x")
        await asyncio.sleep(0.1)


async def test_a_thousand_idle_connections_cost_little_memory(world: World, tmp_path: Path) -> None:
    known = world.settings(drain_s=0.5).model_dump(exclude_unset=True)
    settings = {name: str(value) for name, value in known.items()}
    async with running("edge", settings, tmp_path) as process, AsyncExitStack() as stack:
        host, _, port = process.address.rpartition(":")
        await _asked((await _connected(stack, host, int(port), 1))[0])
        before = _own_bytes(process.process.pid)
        idle = await _connected(stack, host, int(port), IDLE)
        for streams in idle:
            assert (await _asked(streams)).startswith(b"HTTP/1.1 200 ")
        grown = _own_bytes(process.process.pid) - before
        print(f"{IDLE} idle connections: {grown / IDLE / 1024:.1f} KiB each")  # noqa: T201 (a figure)
        assert grown < IDLE * 64 * 1024
        assert (await _asked(idle[0])).startswith(b"HTTP/1.1 200 ")


def _own_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024
