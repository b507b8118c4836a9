"""Connections to origins: what the next request may find on them, and what is never an answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from services.chain.errors import UploadIncompleteError
from services.edge.origins.client import OriginClient
from services.edge.origins.connection import OriginConnection
from services.edge.origins.errors import OriginUnavailableError
from tests.edge.conftest import until
from tests.support.certificates import Authority
from tests.support.http_origin import HttpOrigin, Request, answer, head

MEBIBYTE = 1024 * 1024


@asynccontextmanager
async def connected(origin: HttpOrigin) -> AsyncIterator[OriginConnection]:
    host, _, port = origin.url.removeprefix("http://").partition(":")
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(OriginConnection, host, int(port))
    try:
        yield connection
    finally:
        connection.close()


def client_of(url: str, tls: ssl.SSLContext | None = None) -> OriginClient:
    context = tls or ssl.create_default_context()
    bounds = {"connect_s": 5.0, "answer_s": 30.0, "idle_s": 30.0}
    return OriginClient(url, connections=4, tls=context, **bounds)


async def test_a_connection_listens_again_though_its_last_answer_was_not_read(
    origin: HttpOrigin,
) -> None:
    body = bytes(300_000)  # so much that reading was paused when the last of it came

    async def last(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {"content-length": str(len(body))}) + body)
        writer.close()

    origin.on("/a", answer(200, body))
    origin.on("/last", last)
    async with connected(origin) as connection:
        for path in ("/a", "/a", "/last"):
            connection.begin("GET", None)
            await connection.write(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path.encode())
            await until(lambda: connection.complete, f"{path} is answered")
            assert (await connection.head()).length == len(body)
        await until(lambda: connection.lost, "that the origin closed it is heard of")


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"HTTP/1.1 200 ", b"a" * 4096),
        (b"HTTP/1.1 200 OK\r\nx: ", b"a" * 4096),
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 512),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 128),
        (head(200, {"transfer-encoding": "chunked"}) + b"0\r\nx: ", b"a" * 4096),
    ],
)
async def test_a_head_or_trailer_without_end_is_not_gathered(
    origin: HttpOrigin, begins: bytes, goes_on: bytes
) -> None:
    async def write(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(begins + goes_on * (2 * MEBIBYTE // len(goes_on)))

    origin.on("/a", write)
    async with connected(origin) as connection:
        connection.begin("GET", lambda *_: None)
        await connection.write(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
        await until(lambda: connection.lost, "the origin is given up")
        with pytest.raises(OriginUnavailableError, match="too large"):
            await (connection.read() if b"chunked" in begins else connection.head())


async def test_a_change_of_protocol_is_no_interim_answer(origin: HttpOrigin) -> None:
    async def write(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(103, {}) + head(101, {"upgrade": "x", "connection": "upgrade"}))

    origin.on("/a", write)
    told: list[int] = []
    async with connected(origin) as connection:
        connection.begin("GET", lambda status, *_: told.append(status))
        await connection.write(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
        with pytest.raises(OriginUnavailableError):
            await connection.head()
    assert told == [103]


async def test_an_origin_that_waits_for_the_rest_of_a_request_is_not_sent_another() -> None:
    connections = ended = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections, ended
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head(200, {"content-length": "0"}))
        await reader.read()  # whatever comes is taken for the body
        writer.transport.abort()
        ended += 1

    gone = asyncio.Event()

    async def broken_off() -> AsyncIterator[bytes]:
        yield b"part"
        await gone.wait()
        raise UploadIncompleteError("The client went away.")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = client_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    fields = [(b"host", b"x"), (b"content-length", b"1000")]
    answered = await client.send("POST", b"/a", fields, broken_off())
    gone.set()
    upload = answered.upload
    assert upload is not None
    await until(upload.done)
    answered.close()
    (await client.send("GET", b"/a", [(b"host", b"x")])).close()
    assert connections == 2
    client.close()
    await until(lambda: ended == connections)
    server.close()
    await server.wait_closed()


def test_a_body_that_lasts_until_the_end_is_whole_only_if_the_end_was_said(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    signed = authority.sign("origin")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.certificate_file, signed.key_file)
    read = asyncio.Event()

    async def said(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {}) + b"whole")
        writer.close()

    async def unsaid(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {}) + b"part")
        await read.wait()
        writer.transport.abort()  # TCP ends, TLS does not

    async def ask() -> None:
        async with HttpOrigin(context) as origin:
            origin.on("/said", said)
            origin.on("/unsaid", unsaid)
            trusted = ssl.create_default_context(cafile=str(authority.own.certificate_file))
            client = client_of(origin.url, trusted)
            with await client.send("GET", b"/said", [(b"host", b"x")]) as answered:
                assert [await answered.read(), await answered.read()] == [b"whole", b""]
            with await client.send("GET", b"/unsaid", [(b"host", b"x")]) as answered:
                assert await answered.read() == b"part"
                read.set()
                with pytest.raises(OriginUnavailableError):
                    await answered.read()
            client.close()

    # The loop of the services: asyncio's own does not tell the two ends apart.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())
