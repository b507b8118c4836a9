"""What no gRPC library would send: a server says what is wrong, or nothing, and goes on.

Where grpcio reads the frames, some answers are its own and cannot be changed here: it gives half a
message no answer at all, and takes any content type. Those promises are the envoy face's alone.
"""

from __future__ import annotations

import asyncio
import gzip
import struct
import zlib

import grpc
import pytest

from tests.rpc.conftest import Stub
from tests.support.deadline import DEADLINE_S
from tests.support.echo_server import EchoServer
from tests.support.echo_service import pb
from tests.support.http2_peer import Answer, Http2Peer, framed, request_headers

SAY = "/tests.echo.v1.EchoService/Say"
ASK = "/tests.echo.v1.EchoService/Ask"
COUNT = "/tests.echo.v1.EchoService/Count"
JOIN = "/tests.echo.v1.EchoService/Join"
CHAT = "/tests.echo.v1.EchoService/Chat"
HELLO = pb.SayRequest(text="hello").SerializeToString()
GZIP = {"grpc-encoding": "gzip"}
PACKED = gzip.compress(HELLO, mtime=0)

own_framing = pytest.mark.parametrize("face", ["envoy"], indirect=True, scope="session")


async def _answer(
    echo: EchoServer, path: str, body: bytes, headers: dict[str, str] | None = None
) -> Answer:
    """What comes back for a body; afterwards the connection must serve a proper call."""
    async with Http2Peer.connected(echo.address) as peer:
        stream = await peer.start(request_headers(path, headers))
        await peer.send(stream, body, end=True)
        answer = await peer.answer(stream)
        after = await peer.call(SAY, pb.SayRequest(text="on"))
        assert (await peer.answer(after)).code is grpc.StatusCode.OK
        assert not peer.goaway
    return answer


async def test_a_call_made_by_hand_is_answered_in_form(echo: EchoServer) -> None:
    answer = await _answer(echo, SAY, framed(HELLO))
    assert answer.http_status == 200
    assert answer.headers["content-type"].startswith("application/grpc")
    assert answer.trailers["grpc-status"] == "0"
    assert pb.SayResponse.FromString(answer.message).text == "hello"


async def test_a_body_may_come_a_byte_at_a_time(echo: EchoServer) -> None:
    for path in (SAY, JOIN, CHAT):
        async with Http2Peer.connected(echo.address) as peer:
            stream = await peer.start(request_headers(path))
            for byte in framed(HELLO):
                await peer.send(stream, bytes([byte]))
                await asyncio.sleep(0)
            peer.end(stream)
            answer = await peer.answer(stream)
        assert pb.SayResponse.FromString(answer.message).text == "hello"


async def test_many_messages_may_come_in_one_frame(echo: EchoServer) -> None:
    answer = await _answer(echo, CHAT, framed(HELLO) * 100)
    assert [pb.SayResponse.FromString(raw).text for _, raw in answer.messages] == ["hello"] * 100


async def test_the_content_type_may_name_the_format(echo: EchoServer) -> None:
    answer = await _answer(echo, SAY, framed(HELLO), {"content-type": "application/grpc+proto"})
    assert answer.code is grpc.StatusCode.OK


@pytest.mark.parametrize("path", [SAY, ASK, JOIN, CHAT])
async def test_bytes_that_are_no_message_are_an_invalid_argument(
    echo: EchoServer, path: str
) -> None:
    answer = await _answer(echo, path, framed(b"\xff\xff\xff"))
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert answer.details == "the request is not a well-formed message"


@pytest.mark.parametrize("path", [SAY, JOIN, CHAT])
async def test_compressed_messages_are_understood(echo: EchoServer, path: str) -> None:
    answer = await _answer(echo, path, framed(PACKED, 1), GZIP)
    assert pb.SayResponse.FromString(answer.message).text == "hello"
    answer = await _answer(echo, path, framed(HELLO), GZIP)  # each message may, none must
    assert pb.SayResponse.FromString(answer.message).text == "hello"
    deflated = framed(zlib.compress(HELLO), 1)
    answer = await _answer(echo, path, deflated, {"grpc-encoding": "deflate"})
    assert pb.SayResponse.FromString(answer.message).text == "hello"


async def test_only_who_takes_compressed_answers_gets_them(echo: EchoServer) -> None:
    large = framed(pb.SayRequest(payload=bytes(1_000_000)).SerializeToString())
    plain = await _answer(echo, SAY, large)
    assert len(pb.SayResponse.FromString(plain.message).payload) == 1_000_000
    answer = await _answer(echo, SAY, large, {"grpc-accept-encoding": "identity,gzip"})
    ((flag, message),) = answer.messages
    if flag:
        assert answer.headers["grpc-encoding"] == "gzip"
        message = gzip.decompress(message)
    assert len(pb.SayResponse.FromString(message).payload) == 1_000_000


async def test_a_compressed_message_without_an_encoding_is_refused(echo: EchoServer) -> None:
    for headers in ({}, {"grpc-encoding": "identity"}):
        answer = await _answer(echo, SAY, framed(PACKED, 1), headers)
        assert answer.code is grpc.StatusCode.INTERNAL


@own_framing
async def test_an_encoding_that_the_server_has_not_is_unimplemented(echo: EchoServer) -> None:
    answer = await _answer(echo, SAY, framed(b"???", 1), {"grpc-encoding": "snappy"})
    assert answer.code is grpc.StatusCode.UNIMPLEMENTED
    accepted = {**answer.headers, **answer.trailers}["grpc-accept-encoding"]
    assert "gzip" in accepted


@own_framing
@pytest.mark.parametrize("packed", [b"not gzip", PACKED[:-9], b"", PACKED + b"more"])
async def test_what_is_not_well_compressed_is_refused(echo: EchoServer, packed: bytes) -> None:
    answer = await _answer(echo, SAY, framed(packed, 1), GZIP)
    assert answer.code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL}


@own_framing
async def test_a_small_message_that_unpacks_to_a_huge_one_is_not_unpacked(
    echo: EchoServer,
) -> None:
    bomb = gzip.compress(bytes(256 * 1024 * 1024))
    before = echo.resident_bytes()
    for path in (SAY, JOIN):
        answer = await _answer(echo, path, framed(bomb, 1), GZIP)
        assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert echo.resident_bytes() - before < 64 * 1024 * 1024


@own_framing
@pytest.mark.parametrize("path", [SAY, JOIN, CHAT])
@pytest.mark.parametrize("cut", [3, 5, 9])
async def test_half_a_message_is_not_handled(
    echo: EchoServer, key: str, path: str, cut: int
) -> None:
    data = framed(pb.SayRequest(text="a", key=key).SerializeToString())
    answer = await _answer(echo, path, data[:cut])
    assert answer.code is grpc.StatusCode.INTERNAL
    assert "entered" not in echo.told(key)
    assert "complete" not in echo.told(key)


@own_framing
@pytest.mark.parametrize("cut", [3, 5, 9])
async def test_a_stream_whose_last_message_is_cut_never_looks_complete(
    echo: EchoServer, key: str, cut: int
) -> None:
    first = framed(pb.SayRequest(text="a", key=key).SerializeToString())
    answer = await _answer(echo, JOIN, first + first[:cut])
    assert answer.code is grpc.StatusCode.INTERNAL
    await echo.until_step(key, "ended")
    assert echo.told(key) == ["entered", "ended"]


@own_framing
@pytest.mark.parametrize("count", [0, 2])
async def test_a_unary_call_has_one_message(echo: EchoServer, key: str, count: int) -> None:
    data = framed(pb.SayRequest(text="a", key=key).SerializeToString())
    answer = await _answer(echo, SAY, data * count)
    assert answer.code in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED}
    assert echo.told(key) == []


@own_framing
@pytest.mark.parametrize("path", [SAY, COUNT, JOIN, CHAT])
async def test_a_call_may_be_headers_alone(echo: EchoServer, path: str) -> None:
    async with Http2Peer.connected(echo.address) as peer:
        answer = await peer.answer(await peer.start(request_headers(path), end=True))
    one_request = path in {SAY, COUNT}
    assert answer.code is (grpc.StatusCode.INTERNAL if one_request else grpc.StatusCode.OK)


@own_framing
async def test_a_flag_that_there_is_not_is_refused(echo: EchoServer, key: str) -> None:
    request = pb.SayRequest(text="a", key=key).SerializeToString()
    answer = await _answer(echo, SAY, framed(request, 2), GZIP)
    assert answer.code in {grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT}
    assert echo.told(key) == []


async def test_a_length_that_nobody_may_send_is_refused_at_once(echo: EchoServer) -> None:
    for path in (SAY, JOIN, CHAT):
        async with Http2Peer.connected(echo.address) as peer:
            stream = await peer.start(request_headers(path))
            await peer.send(stream, struct.pack(">BI", 0, 0xFFFFFFFF) + bytes(1000))
            answer = await peer.answer(stream)  # though there is more to come
            refused = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert answer.code in refused
            after = await peer.call(SAY, pb.SayRequest(text="on"))
            assert (await peer.answer(after)).code is grpc.StatusCode.OK


@own_framing
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/grpcx"])
async def test_what_is_no_grpc_is_told_so_in_http(
    echo: EchoServer, key: str, content_type: str
) -> None:
    data = framed(pb.SayRequest(text="a", key=key).SerializeToString())
    answer = await _answer(echo, SAY, data, {"content-type": content_type})
    assert answer.http_status == 415
    assert echo.told(key) == []


async def test_a_get_is_no_call(echo: EchoServer, key: str) -> None:
    data = framed(pb.SayRequest(text="a", key=key).SerializeToString())
    answer = await _answer(echo, SAY, data, {":method": "GET"})
    assert answer.code is not grpc.StatusCode.OK
    assert echo.told(key) == []


@pytest.mark.parametrize(
    "path", ["/", "//", "/tests.echo.v1.EchoService/", "/tests.echo.v1.EchoService/Say/", "/%00"]
)
async def test_a_path_that_names_no_method_is_unimplemented(echo: EchoServer, path: str) -> None:
    answer = await _answer(echo, path, framed(HELLO))
    assert answer.code is grpc.StatusCode.UNIMPLEMENTED or answer.http_status in {400, 404}


async def test_bytes_that_are_no_http2_end_their_connection_alone(
    echo: EchoServer, stub: Stub
) -> None:
    async with Http2Peer.connected(echo.address) as peer:
        peer.send_raw(b"\xff" * 1000)
        host, _, port = echo.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"\x00" * 100)
        async with asyncio.timeout(DEADLINE_S):
            while await reader.read(65_536):
                pass
        writer.close()
        assert (await stub.Say(pb.SayRequest(text="on"))).text == "on"


async def test_metadata_that_is_no_text_leaves_the_server_whole(
    echo: EchoServer, stub: Stub
) -> None:
    async with Http2Peer.connected(echo.address) as peer:
        more = {"x-odd": "caf\u00e9", "x-broken-bin": "%%%", "x-request-id": "\u2603"}
        stream = await peer.call(SAY, pb.SayRequest(behaviour="look"), more)
        answer = await peer.answer(stream)
        assert answer.code is not None or answer.reset is not None
    assert (await stub.Say(pb.SayRequest(text="on"))).text == "on"
