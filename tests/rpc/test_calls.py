"""Calls of the four kinds, on each face, through real channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from services.rpc.errors import InternalError
from tests.rpc.conftest import Stub
from tests.support.echo_server import EchoServer
from tests.support.echo_service import Message, pb, pb_grpc

MIB = 1024 * 1024


async def _requests(*texts: str) -> AsyncIterator[Message]:
    for text in texts:
        yield pb.SayRequest(text=text)


async def test_a_unary_call_is_answered(stub: Stub) -> None:
    assert (await stub.Say(pb.SayRequest(text="hello"))).text == "hello"


async def test_a_server_streams_its_answers(stub: Stub) -> None:
    answers = [answer.text async for answer in stub.Count(pb.SayRequest(text="a", times=3))]
    assert answers == ["a", "a", "a"]


async def test_a_client_streams_its_requests(stub: Stub) -> None:
    assert (await stub.Join(_requests("a", "b", "c"))).text == "abc"


async def test_both_stream_in_turns(stub: Stub) -> None:
    chat = stub.Chat()
    for number in range(100):
        await chat.write(pb.SayRequest(text=str(number)))
        assert (await chat.read()).text == str(number)
    await chat.done_writing()
    assert await chat.read() is grpc.aio.EOF


async def test_both_stream_from_an_iterator(stub: Stub) -> None:
    answers = [answer.text async for answer in stub.Chat(_requests("a", "b"))]
    assert answers == ["a", "b"]


async def test_a_thousand_messages_keep_their_order_both_ways(stub: Stub) -> None:
    texts = [str(number) for number in range(1000)]
    assert [answer.text async for answer in stub.Chat(_requests(*texts))] == texts
    assert (await stub.Join(_requests(*texts))).text == "".join(texts)


async def test_an_empty_stream_is_a_stream(stub: Stub) -> None:
    assert (await stub.Join(_requests())).text == ""
    assert [answer async for answer in stub.Count(pb.SayRequest())] == []
    assert [answer async for answer in stub.Chat(_requests())] == []


async def test_empty_messages_are_messages(stub: Stub) -> None:
    assert await stub.Say(pb.SayRequest()) == pb.SayResponse()
    answers = [answer async for answer in stub.Count(pb.SayRequest(times=5))]
    assert answers == [pb.SayResponse()] * 5
    answers = [answer async for answer in stub.Chat(_requests("", "", ""))]
    assert answers == [pb.SayResponse()] * 3
    assert await stub.Join(_requests("", "")) == pb.SayResponse()


@pytest.mark.parametrize("size", [1, 16_379, 16_384, 65_535, 65_536, MIB, 4 * MIB - 100])
async def test_a_message_of_any_size_comes_back_whole(stub: Stub, size: int) -> None:
    payload = (bytes(range(251)) * (size // 251 + 1))[:size]
    assert (await stub.Say(pb.SayRequest(payload=payload))).payload == payload
    chat = stub.Chat()
    for _ in range(2):
        await chat.write(pb.SayRequest(payload=payload))
        assert (await chat.read()).payload == payload
    await chat.done_writing()
    assert await chat.read() is grpc.aio.EOF


async def test_an_answer_may_be_larger_than_a_request_may(stub: Stub) -> None:
    """The limit is for what the server must hold of a stranger's."""
    payload = bytes(3 * MIB)
    answers = stub.Count(pb.SayRequest(behaviour="endless", payload=payload))
    assert [len((await answers.read()).payload) for _ in range(4)] == [len(payload)] * 4
    answers.cancel()


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_requests_are_understood(echo: EchoServer, compression: int) -> None:
    payload = b"again and " * 10_000

    async def requests() -> AsyncIterator[Message]:
        for _ in range(3):
            yield pb.SayRequest(payload=payload)

    channel = grpc.aio.insecure_channel(echo.address, compression=grpc.Compression(compression))
    async with channel:
        stub: Stub = pb_grpc.EchoServiceStub(channel)
        assert (await stub.Say(pb.SayRequest(payload=payload))).payload == payload
        assert [answer.payload async for answer in stub.Chat(requests())] == [payload] * 3


async def test_an_answer_comes_before_the_caller_has_ended_its_stream(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    chat = stub.Chat()
    await chat.write(pb.SayRequest(text="a", key=key))
    assert (await chat.read()).text == "a"
    assert "complete" not in echo.told(key)
    await chat.done_writing()
    assert await chat.read() is grpc.aio.EOF
    await echo.until_step(key, "complete")


async def test_many_streams_share_a_connection(stub: Stub) -> None:
    async def chat(number: int) -> list[str]:
        texts = [f"{number}.{turn}" for turn in range(5)]
        return [answer.text async for answer in stub.Chat(_requests(*texts))]

    chats = await asyncio.gather(*(chat(number) for number in range(200)))
    assert chats == [[f"{number}.{turn}" for turn in range(5)] for number in range(200)]


async def test_calls_at_once_keep_their_own_context(stub: Stub) -> None:
    async def look(number: int) -> str:
        seen = (
            await stub.Say(pb.SayRequest(behaviour="look"), metadata=(("x-who", str(number)),))
        ).seen
        return str(seen["metadata.x-who"])

    numbers = [str(number) for number in range(100)]
    assert await asyncio.gather(*map(look, range(100))) == numbers


def test_a_synchronous_client_makes_calls_of_all_kinds(echo: EchoServer) -> None:
    with grpc.insecure_channel(echo.address) as channel:
        stub: Stub = pb_grpc.EchoServiceStub(channel)
        say = [pb.SayRequest(text=text) for text in "abc"]
        assert stub.Say(say[0], timeout=5).text == "a"
        assert [answer.text for answer in stub.Count(pb.SayRequest(text="a", times=2))] == ["a"] * 2
        assert stub.Join(iter(say)).text == "abc"
        assert [answer.text for answer in stub.Chat(iter(say))] == ["a", "b", "c"]
        assert stub.Say.with_call(pb.SayRequest(trailing={"x-cost": "7"}))[1].trailing_metadata()


async def test_a_method_that_the_servicer_leaves_out_is_unimplemented(stub: Stub) -> None:
    with pytest.raises(InternalError) as caught:
        await stub.Forget(pb.SayRequest())
    cause = caught.value.__cause__
    assert isinstance(cause, grpc.aio.AioRpcError)
    assert cause.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "path", ["/tests.echo.v1.EchoService/Shout", "/tests.echo.v2.EchoService/Say", "/x"]
)
async def test_what_there_is_not_is_unimplemented(echo: EchoServer, path: str) -> None:
    async with grpc.aio.insecure_channel(echo.address) as channel:
        unary: Stub = channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        stream: Stub = channel.stream_stream(path)
        assert await stream().code() is grpc.StatusCode.UNIMPLEMENTED
