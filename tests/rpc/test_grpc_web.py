"""Web pages by gRPC-Web, which only the envoy face speaks.

Through connect-web in node, always; in a real browser where the machine has Chromium or Chrome
(Debian: ``apt-get install chromium``); and by hand, for what no library would send.
Format: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Iterator

import aiohttp
import pytest

from tests.support.echo_server import EchoServer, running_echo
from tests.support.echo_service import Message, pb
from tests.support.http2_peer import framed
from tests.support.web_page import PageServer, Report, browser, page_server, report_of_node

WEB = "application/grpc-web+proto"
TEXT = "application/grpc-web-text+proto"
CLIENTS = ("node", "browser") if browser() else ("node",)


@pytest.fixture(scope="module")
def page() -> Iterator[PageServer]:
    """Where the page comes from."""
    with page_server() as server:
        yield server


@pytest.fixture(scope="module")
def echo(page: PageServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EchoServer]:
    """A server that the page's origin may call."""
    settings = {"grpc_web_origins": json.dumps([page.origin])}
    with running_echo("envoy", tmp_path_factory.mktemp("web") / "echo", settings) as server:
        yield server


@pytest.fixture(scope="module", params=CLIENTS)
def report(
    request: pytest.FixtureRequest,
    page: PageServer,
    echo: EchoServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Report:
    """What the page saw."""
    program = browser()
    if request.param == "node":
        return report_of_node(echo.address)
    assert program is not None
    return page.report_of(program, echo.address, tmp_path_factory.mktemp("profile"))


async def test_a_page_calls_and_reads_streams(report: Report) -> None:
    assert "error" not in report, report["error"]
    assert report["said"] == "hello"
    assert report["counted"] == ["a"] * 100
    assert report["large"] == 1_000_000


async def test_a_handler_sees_a_pages_call_as_any_other(report: Report) -> None:
    seen = report["seen"]
    assert seen["request_id"] == "web-1"
    assert 4 < float(seen["remaining_s"]) <= 5


async def test_a_page_gets_rich_errors(report: Report) -> None:
    assert report["refused"] == {
        "code": "Unavailable",
        "message": "ü 1\n2",
        "details": ["google.rpc.ErrorInfo", "google.rpc.RetryInfo"],
    }
    assert report["invalid"]["code"] == "InvalidArgument"
    assert report["invalid"]["details"] == ["google.rpc.BadRequest", "google.rpc.ErrorInfo"]
    assert report["unknown"]["code"] == "Internal"
    assert "ü" not in report["unknown"]["message"]
    assert report["unimplemented"]["code"] == "Unimplemented"


async def test_a_page_gets_what_was_sent_before_an_error(report: Report) -> None:
    assert report["before"] == ["a", "a"]
    assert report["broken"]["code"] == "Unavailable"


async def test_a_pages_deadline_ends_its_call(report: Report) -> None:
    assert report["late"]["code"] == "DeadlineExceeded"


def _frames(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        flag, length = struct.unpack(">BI", body[:5])
        found.append((flag, body[5 : 5 + length]))
        body = body[5 + length :]
    return found


def _untexted(body: bytes) -> bytes:
    """Base64 of parts, each with padding of its own."""
    return b"".join(base64.b64decode(body[at : at + 4]) for at in range(0, len(body), 4))


async def _post(
    echo: EchoServer, method: str, body: bytes, headers: dict[str, str]
) -> tuple[aiohttp.ClientResponse, bytes]:
    url = f"http://{echo.address}/tests.echo.v1.EchoService/{method}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=headers) as answer,
    ):
        return answer, await answer.read()


@pytest.mark.parametrize("method", ["Say", "Count"])
@pytest.mark.parametrize("kind", [WEB, TEXT, "application/grpc-web", "application/grpc-web-text"])
async def test_both_forms_are_spoken(echo: EchoServer, kind: str, method: str) -> None:
    request = framed(pb.SayRequest(text="hello", times=1).SerializeToString())
    as_text = "text" in kind
    body = base64.b64encode(request) if as_text else request
    answer, raw = await _post(echo, method, body, {"content-type": kind, "accept": kind})
    assert answer.status == 200
    assert answer.headers["content-type"].startswith(kind.partition("+")[0])
    (message, trailers) = _frames(_untexted(raw) if as_text else raw)
    assert message[0] == 0
    assert pb.SayResponse.FromString(message[1]).text == "hello"
    assert trailers[0] == 0x80
    assert b"grpc-status:0" in trailers[1].replace(b" ", b"")


async def _preflight(echo: EchoServer, origin: str, **more: str) -> aiohttp.ClientResponse:
    url = f"http://{echo.address}/tests.echo.v1.EchoService/Say"
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-grpc-web,grpc-timeout,authorization",
        **more,
    }
    async with (
        aiohttp.ClientSession() as session,
        session.options(url, headers=headers) as answer,
    ):
        await answer.read()
        return answer


async def test_a_page_of_the_origin_may_call(echo: EchoServer, page: PageServer) -> None:
    answer = await _preflight(echo, page.origin)
    assert answer.status in {200, 204}
    assert answer.headers["access-control-allow-origin"] == page.origin
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    for name in ("content-type", "x-grpc-web", "grpc-timeout", "authorization", "x-user-agent"):
        assert name in allowed


async def test_an_answer_may_be_read_by_a_page_of_the_origin(
    echo: EchoServer, page: PageServer
) -> None:
    request = framed(pb.SayRequest(text="hello").SerializeToString())
    headers = {"content-type": WEB, "origin": page.origin}
    answer, _ = await _post(echo, "Say", request, headers)
    assert answer.headers["access-control-allow-origin"] == page.origin
    exposed = answer.headers["access-control-expose-headers"].lower()
    for name in ("grpc-status", "grpc-message", "grpc-status-details-bin"):
        assert name in exposed


async def test_a_page_of_another_origin_may_not(echo: EchoServer) -> None:
    answer = await _preflight(echo, "https://elsewhere.example")
    assert "access-control-allow-origin" not in answer.headers
    request = framed(pb.SayRequest(text="hello").SerializeToString())
    headers = {"content-type": WEB, "origin": "https://elsewhere.example"}
    answer, _ = await _post(echo, "Say", request, headers)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("body", [b"", b"\x00", b"\x00\x00\x00\x00\x09half", b"%%%not base64"])
@pytest.mark.parametrize("kind", [WEB, TEXT])
async def test_a_broken_body_is_refused(echo: EchoServer, kind: str, body: bytes) -> None:
    answer, raw = await _post(echo, "Say", body, {"content-type": kind})
    told = answer.headers.get("grpc-status") or ("0" if b"grpc-status:0" in raw else "other")
    assert answer.status != 200 or told != "0"


async def test_a_page_that_is_closed_ends_its_stream(echo: EchoServer, key: str) -> None:
    request: Message = pb.SayRequest(behaviour="endless", payload=bytes(1000), key=key)
    url = f"http://{echo.address}/tests.echo.v1.EchoService/Count"
    async with aiohttp.ClientSession() as session:
        body = framed(request.SerializeToString())
        answer = await session.post(url, data=body, headers={"content-type": WEB})
        await answer.content.readexactly(1000)
        answer.close()
    await echo.until_step(key, "cleaned_up")


async def test_grpc_itself_is_spoken_on_the_same_port(echo: EchoServer) -> None:
    async with echo.stub() as stub:
        assert (await stub.Say(pb.SayRequest(text="hello"))).text == "hello"


async def test_without_origins_there_is_no_grpc_web(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with running_echo("envoy", tmp_path_factory.mktemp("no-web") / "echo") as echo:
        request = framed(pb.SayRequest(text="hello").SerializeToString())
        with pytest.raises((aiohttp.ClientError, asyncio.TimeoutError)):
            await _post(echo, "Say", request, {"content-type": WEB})
