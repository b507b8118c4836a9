"""How origins are asked: connections kept and bounded, answers framed for sure or refused."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.edge.origins.client import OriginClient
from services.edge.origins.errors import OriginTimeoutError, OriginUnavailableError
from tests.support.deadline import DEADLINE_S
from tests.support.http_origin import HttpOrigin, Request, Script, answer, head

WAITS = {"connect_s": DEADLINE_S, "answer_s": DEADLINE_S, "idle_s": DEADLINE_S}
LIMITS: dict[str, Any] = {"connections": 4, **WAITS}


@asynccontextmanager
async def asking(origin: HttpOrigin, **changes: float) -> AsyncIterator[OriginClient]:
    tls = ssl.create_default_context()
    client = OriginClient(origin.url, tls=tls, **(LIMITS | changes))
    yield client
    client.close()


async def ask(client: OriginClient, target: str = "/a", method: str = "GET") -> tuple[int, bytes]:
    fields = [(b"host", b"origin")]
    with await client.send(method, target.encode(), fields) as answered:
        body = b""
        while piece := await answered.read():
            body += piece
        return answered.head.status, body


def raw(data: bytes, *, close: bool = False) -> Script:
    async def write(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if close:
            writer.close()

    return write


CHUNKED = {"transfer-encoding": "chunked"}


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (answer(200, b"body"), b"body"),
        (answer(204), b""),
        (answer(304, content_length="5"), b""),
        (raw(head(200, {}) + b"to the end", close=True), b"to the end"),
        (raw(head(200, CHUNKED) + b"4;x=y\r\nbody\r\n0\r\nTrailer: 1\r\n\r\n"), b"body"),
        (raw(head(100, {}) + head(103, {"link": "a"}) + head(200, {"content-length": "0"})), b""),
        (raw(head(200, {"content-length": "4"}) + b"body and more"), b"body"),
    ],
)
async def test_bodies_end_where_their_framing_says(
    origin: HttpOrigin, script: Script, expected: bytes
) -> None:
    origin.on("/a", script)
    origin.on("/b", answer(200, b"next"))
    async with asking(origin) as client:
        assert (await ask(client))[1] == expected
        assert await ask(client, "/b") == (200, b"next")


@pytest.mark.parametrize(
    "script",
    [
        raw(b"nonsense\r\n\r\n"),
        raw(b"", close=True),
        raw(b"HTTP/1.1 200 OK\r\nConte", close=True),
        raw(head(200, {"content-length": "9"}) + b"part", close=True),
        raw(head(200, CHUNKED) + b"4\r\nbody\r\n", close=True),
        raw(head(200, CHUNKED) + b"zz\r\nbody\r\n"),
        raw(head(200, {"transfer-encoding": "gzip, chunked"}) + b"0\r\n\r\n"),
        raw(head(200, {"content-length": "4", "transfer-encoding": "chunked"}) + b"0\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody"),
        raw(head(101, {"upgrade": "x", "connection": "upgrade"})),
        raw(head(200, {"x": "y" * 200_000})),
    ],
)
async def test_what_is_not_framed_for_sure_is_refused(origin: HttpOrigin, script: Script) -> None:
    origin.on("/a", script)
    async with asking(origin) as client:
        with pytest.raises(OriginUnavailableError):
            await ask(client)


async def test_connections_are_kept_and_bounded(origin: HttpOrigin) -> None:
    seen: set[asyncio.StreamWriter] = set()
    at_once = most = 0

    async def counting(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        seen.add(writer)
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        await answer(200, b"body")(request, writer)

    origin.on("/a", counting)
    async with asking(origin) as client:
        for _ in range(5):
            await asyncio.gather(*(ask(client) for _ in range(20)))
    assert most <= 4
    assert len(seen) <= 4


async def test_a_kept_connection_that_has_gone_is_replaced_unless_that_repeats_what_must_not(
    origin: HttpOrigin,
) -> None:
    async def once(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.target == "/drop":
            writer.close()
        else:
            await answer(200, b"body")(request, writer)

    origin.on("/a", once)
    origin.on("/drop", once)
    async with asking(origin) as client:
        await ask(client)
        with pytest.raises(OriginUnavailableError):
            await ask(client, "/drop")
        assert origin.asked("/drop") == 2  # the second on a new connection
        await ask(client)
        with pytest.raises(OriginUnavailableError):
            await ask(client, "/drop", "POST")
        assert origin.asked("/drop") == 3


async def test_nobody_there_and_nobody_answering_are_told_apart(origin: HttpOrigin) -> None:
    async def silent(_: Request, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def stopping(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {"content-length": "9"}) + b"part")
        await writer.drain()
        await asyncio.Event().wait()

    origin.on("/silent", silent)
    origin.on("/stopping", stopping)
    async with asking(origin, answer_s=0.5, idle_s=0.5, connections=1, connect_s=0.5) as client:
        for path in ("/silent", "/stopping"):
            with pytest.raises(OriginTimeoutError):
                await ask(client, path)
        held = await client.send("GET", b"/a", [(b"host", b"x")])
        with pytest.raises(OriginTimeoutError):  # no place
            await ask(client)
        held.close()
        assert (await ask(client))[0] == 404
    await origin.stop()
    async with asking(origin) as client:
        with pytest.raises(OriginUnavailableError):
            await ask(client)


async def test_a_body_that_is_not_read_is_not_taken_in_either(origin: HttpOrigin) -> None:
    sent, stuck = 0, asyncio.Event()

    async def endless(_: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(head(200, {"content-length": str(10**9)}))
        while not stuck.is_set():
            writer.write(bytes(64 * 1024))
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except TimeoutError:
                stuck.set()
            sent += 64 * 1024

    origin.on("/a", endless)
    async with asking(origin) as client:
        answered = await client.send("GET", b"/a", [(b"host", b"x")])
        await asyncio.wait_for(stuck.wait(), DEADLINE_S)
        assert sent < 64 * 1024 * 1024
        answered.close()


@asynccontextmanager
async def hasty_origin(answered: bytes) -> AsyncIterator[str]:
    """An origin that answers at once and never reads; its URL."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(answered)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for writer in writers:
        writer.transport.abort()
    await server.wait_closed()


async def test_an_origin_that_takes_no_more_of_a_request_is_given_up() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(64 * 1024)

    async with hasty_origin(b"") as url:
        tls = ssl.create_default_context()
        client = OriginClient(url, tls=tls, **(LIMITS | {"idle_s": 0.2}))
        with pytest.raises(OriginTimeoutError):
            await client.send("POST", b"/a", [(b"host", b"x")], endless())
        client.close()


async def test_an_answer_may_come_before_the_request_is_through() -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"beginning"
        await gate.wait()

    async with hasty_origin(head(413, {"content-length": "0"})) as url:
        client = OriginClient(url, tls=ssl.create_default_context(), **LIMITS)
        with await client.send("POST", b"/a", [(b"host", b"x")], slow()) as answered:
            assert answered.head.status == 413
        client.close()
