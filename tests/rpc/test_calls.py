"""Calls of the four kinds, through a real server and a real channel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import (  # type: ignore[import-untyped]  # has none
    health_pb2,
    health_pb2_grpc,
)
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]  # has none
    reflection_pb2,
    reflection_pb2_grpc,
)

from services.rpc.call import Call
from services.rpc.client import connect
from services.rpc.errors import DependencyUnavailableError, InternalError
from services.rpc.server import Server
from tests.rpc.conftest import ServeEcho
from tests.support.echo_service import EchoServicer, Message, pb


async def _requests(*texts: str) -> AsyncIterator[Message]:
    for text in texts:
        yield pb.SayRequest(text=text)


async def test_a_unary_call_is_answered(serve_echo: ServeEcho) -> None:
    async with serve_echo() as (stub, _):
        assert (await stub.Say(pb.SayRequest(text="hello"))).text == "hello"


async def test_a_server_streams_its_answers(serve_echo: ServeEcho) -> None:
    async with serve_echo() as (stub, _):
        answers = [answer.text async for answer in stub.Count(pb.SayRequest(text="a", times=3))]
    assert answers == ["a", "a", "a"]


async def test_a_client_streams_its_requests(serve_echo: ServeEcho) -> None:
    async with serve_echo() as (stub, _):
        assert (await stub.Join(_requests("a", "b", "c"))).text == "abc"


async def test_both_stream_in_turns(serve_echo: ServeEcho) -> None:
    async with serve_echo() as (stub, _):
        chat = stub.Chat()
        for text in ("a", "b"):
            await chat.write(pb.SayRequest(text=text))
            assert (await chat.read()).text == text
        await chat.done_writing()
        assert await chat.read() is grpc.aio.EOF


async def test_both_stream_from_an_iterator(serve_echo: ServeEcho) -> None:
    async with serve_echo() as (stub, _):
        answers = [answer.text async for answer in stub.Chat(_requests("a", "b"))]
    assert answers == ["a", "b"]


async def test_an_empty_stream_is_a_stream(serve_echo: ServeEcho) -> None:
    async with serve_echo() as (stub, _):
        assert (await stub.Join(_requests())).text == ""
        assert [answer async for answer in stub.Count(pb.SayRequest())] == []


async def test_a_handler_sees_the_call_and_not_the_library(serve_echo: ServeEcho) -> None:
    seen: list[Call] = []

    async def look(_: Message, call: Call) -> Message:
        assert Call.current() is call
        seen.append(call)
        call.trailing_metadata["x-cost"] = "7"
        return pb.SayResponse()

    async with serve_echo(EchoServicer(look=look)) as (stub, _):
        started = time.monotonic()
        call = stub.Say(
            pb.SayRequest(behaviour="look"),
            timeout=3,
            metadata=(("x-colour", "blue"), ("x-raw-bin", b"\x00")),
        )
        await call
        trailing = await call.trailing_metadata()
    (handled,) = seen
    assert handled.method == "/tests.echo.v1.EchoService/Say"
    assert handled.metadata["x-colour"] == "blue"
    assert "x-raw-bin" not in handled.metadata
    assert handled.deadline is not None
    assert started + 2.5 < handled.deadline < started + 3.5
    assert handled.peer.startswith("127.0.0.1:")
    assert handled.identity == ""
    assert trailing["x-cost"] == "7"


async def test_trailing_metadata_stands_behind_a_stream(serve_echo: ServeEcho) -> None:
    async def price(_: Message, call: Call) -> Message:
        call.trailing_metadata["x-cost"] = "7"
        return pb.SayResponse()

    async with serve_echo(EchoServicer(price=price)) as (stub, _):
        call = stub.Count(pb.SayRequest(behaviour="price", times=1))
        assert len([answer async for answer in call]) == 2
        assert (await call.trailing_metadata())["x-cost"] == "7"


async def test_calls_at_once_keep_their_own_context(serve_echo: ServeEcho) -> None:
    async def who(_: Message, call: Call) -> Message:
        await asyncio.sleep(0.01)
        assert Call.current() is call
        return pb.SayResponse(text=call.metadata["x-who"])

    async with serve_echo(EchoServicer(who=who)) as (stub, _):
        request = pb.SayRequest(behaviour="who")
        answers = await asyncio.gather(
            *(stub.Say(request, metadata=(("x-who", str(n)),)) for n in range(50))
        )
    assert [answer.text for answer in answers] == [str(n) for n in range(50)]


async def test_a_method_that_the_servicer_leaves_out_is_unimplemented(
    serve_echo: ServeEcho,
) -> None:
    async with serve_echo() as (stub, _):
        with pytest.raises(InternalError) as caught:
            await stub.Forget(pb.SayRequest())
    cause = caught.value.__cause__
    assert isinstance(cause, grpc.aio.AioRpcError)
    assert cause.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_servicer_of_another_make_is_refused() -> None:
    with pytest.raises(TypeError, match="not derived from a generated servicer class"):
        Server(listen="127.0.0.1:0", servicers=[object()])


async def test_health_names_every_service(serve_echo: ServeEcho) -> None:
    async with serve_echo() as (_, server), connect(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "tests.echo.v1.EchoService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_the_services(serve_echo: ServeEcho) -> None:
    async def ask() -> AsyncIterator[Message]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    async with serve_echo() as (_, server), connect(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = [answer async for answer in stub.ServerReflectionInfo(ask())]
    names = {service.name for service in answer.list_services_response.service}
    assert {"tests.echo.v1.EchoService", "grpc.health.v1.Health"} <= names


async def test_a_port_in_use_is_an_error(serve_echo: ServeEcho) -> None:
    async with serve_echo() as (_, server):
        second = Server(listen=server.address, servicers=[EchoServicer()])
        with pytest.raises(OSError, match="cannot listen"):
            await second.start()


async def test_nobody_there_is_an_unavailable_dependency(serve_echo: ServeEcho) -> None:
    async with serve_echo() as (_, server):
        address = server.address
    async with connect(address) as channel:
        with pytest.raises(DependencyUnavailableError):
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())


async def test_a_failure_of_the_callers_own_stream_reaches_the_caller(
    serve_echo: ServeEcho,
) -> None:
    async def broken() -> AsyncIterator[Message]:
        yield pb.SayRequest(text="a")
        raise ConnectionResetError("the reader went away")

    async with serve_echo() as (stub, _):
        with pytest.raises(ConnectionResetError, match="the reader went away"):
            await stub.Join(broken())
        with pytest.raises(ConnectionResetError, match="the reader went away"):
            [answer async for answer in stub.Chat(broken())]
