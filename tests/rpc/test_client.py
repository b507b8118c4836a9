"""The client's own part: what it does when it cannot, or must not, reach a server."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc_health.v1 import (  # type: ignore[import-untyped]  # has none
    health_pb2,
    health_pb2_grpc,
)

from services.rpc.call import Call
from services.rpc.client import connect
from services.rpc.errors import DeadlineExceededError, DependencyUnavailableError
from services.rpc.server import Server
from tests.rpc.conftest import Stub
from tests.support.echo_server import EchoServer, running_echo
from tests.support.echo_service import Message, pb


async def test_nobody_there_is_an_unavailable_dependency() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    async with connect(address) as channel:
        with pytest.raises(DependencyUnavailableError):
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())


async def test_a_failure_of_the_callers_own_stream_reaches_the_caller(stub: Stub) -> None:
    async def broken() -> AsyncIterator[Message]:
        yield pb.SayRequest(text="a")
        raise ConnectionResetError("the reader went away")

    with pytest.raises(ConnectionResetError, match="the reader went away"):
        await stub.Join(broken())
    with pytest.raises(ConnectionResetError, match="the reader went away"):
        [answer async for answer in stub.Chat(broken())]


async def test_a_call_without_time_left_is_not_even_sent(echo: EchoServer, key: str) -> None:
    async with echo.stub() as stub:
        Call("/in/time", deadline=time.monotonic() - 1).activate()
        with pytest.raises(DeadlineExceededError):
            await stub.Say(pb.SayRequest(key=key))
        Call("/in/time", deadline=time.monotonic() + 10).activate()
        await stub.Say(pb.SayRequest(key=key))
    assert echo.told(key) == ["entered"]


async def test_without_a_deadline_of_the_caller_the_channels_default_holds(stub: Stub) -> None:
    look = pb.SayRequest(behaviour="look")
    assert 4 < float((await stub.Say(look)).seen["remaining_s"]) < 5.5  # grpc rounds up
    (answer,) = [answer async for answer in stub.Count(look)]
    assert answer.seen["remaining_s"] == "None"


async def test_a_servicer_of_another_make_is_refused() -> None:
    with pytest.raises(TypeError, match="not derived from a generated servicer class"):
        Server(listen="127.0.0.1:0", servicers=[object()])


async def test_a_server_that_dies_in_a_call_is_an_unavailable_dependency(
    face: str, tmp_path: Path, key: str
) -> None:
    with running_echo(face, tmp_path) as echo:
        async with echo.stub() as stub:
            call = stub.Say(pb.SayRequest(behaviour="wait", key=key))
            await echo.until_step(key, "entered")
            echo.process.kill()
            with pytest.raises(DependencyUnavailableError):
                await call
