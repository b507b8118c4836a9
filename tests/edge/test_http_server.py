"""The HTTP server's own limits."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress

import pytest

from services.edge.http import server
from services.edge.http.application import Application
from services.edge.http.cors import Cors
from services.edge.http.fronts import Fronts
from services.edge.http.intake import Intake
from services.edge.http.routes import Routes
from services.edge.http.server import HttpServer
from tests.edge.conftest import RunningEdge, World
from tests.support.deadline import DEADLINE_S
from tests.support.http_answers import answers_in


async def exchanged(edge: RunningEdge, sent: bytes) -> bytes:
    """What the server answers before it ends the connection."""
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    try:
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), DEADLINE_S)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_head_without_end_is_cut_off(edge: RunningEdge) -> None:
    endless = b"GET /healthz HTTP/1.1\r\n" + b"x-filler: " + b"x" * 2_000_000
    assert await exchanged(edge, endless) == b""


async def test_a_head_that_takes_too_long_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, edge: RunningEdge
) -> None:
    monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 0.2)
    assert await exchanged(edge, b"GET /healthz HTTP/1.1\r\n") == b""
    assert await exchanged(edge, b"") == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET healthz HTTP/1.1\r\nHost: e\r\n\r\n",
        b"BREW /healthz\r\n\r\n",
        b"BREW /healthz HTTP/7\r\nHost: e\r\n\r\n",
        b"B(EW /healthz HTTP/1.1\r\nHost: e\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: e\r\nno colon\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_400(edge: RunningEdge, sent: bytes) -> None:
    assert (await exchanged(edge, sent)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("method", ["BREW", "GETS", "get", "X-1"])
async def test_a_method_that_nobody_knows_is_501(edge: RunningEdge, method: str) -> None:
    sent = f"{method} /healthz HTTP/1.1\r\nHost: e\r\n\r\n".encode()
    [answer] = answers_in(await exchanged(edge, sent))
    assert answer.status == json.loads(answer.body)["status"] == 501
    assert answer.fields[b"content-type"] == b"application/problem+json"


async def test_a_method_that_is_known_and_not_taken_is_405(edge: RunningEdge) -> None:
    for method in ("PUT", "TRACE", "PROPFIND"):
        answer = await edge.get("/healthz", method=method)
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"


async def test_requests_in_a_row_are_answered_in_their_order(edge: RunningEdge) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: e\r\n"
    sent = request + b"\r\n" + request.replace(b"healthz", b"readyz") + b"Connection: close\r\n\r\n"
    answer = await exchanged(edge, sent)
    assert answer.index(b"alive") < answer.index(b"ready")


async def test_garbage_ends_the_connection_even_if_a_request_was_still_to_be_answered(
    edge: RunningEdge,
) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: e\r\n\r\n"
    [answer] = answers_in(await exchanged(edge, request + request + b"\0 garbage\r\n\r\n"))
    assert answer.status == 200


async def test_a_connection_without_a_request_is_ended_whatever_else_arrives(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_S", 0.5)
    request = b"GET /healthz HTTP/1.1\r\nHost: e\r\n"
    async with world.edge() as edge:
        for sent in (
            # An empty line may stand before a request (RFC 9112, section 2.2).
            (request + b"\r\n", b"\r\n"),
            # A body that nobody waits for.
            (request + b"Content-Length: 10\r\n\r\n", b"a"),
        ):
            reader, writer = await asyncio.open_connection(edge.host, edge.port)
            writer.write(sent[0])
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
            writer.write(sent[1])
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
            writer.close()


async def test_a_taken_address_is_said_to_be_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        application = Application(Routes(), Cors(), Intake(1), Fronts(None))
        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            await HttpServer(application, listen=address).start()
