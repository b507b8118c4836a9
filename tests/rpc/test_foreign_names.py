"""A servicer under a name of another contract: called, logged and healthy by that name."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import (  # type: ignore[import-untyped]  # has none
    health_pb2,
    health_pb2_grpc,
)

from services.rpc.client import connect
from tests.support.deadline import DEADLINE_S
from tests.support.echo_server import EchoServer
from tests.support.echo_service import pb

SERVICE = "foreign.v3.Echo"


async def test_it_is_called_by_that_name(echo: EchoServer) -> None:
    async with connect(echo.address, errors=()) as channel:
        say = channel.unary_unary(
            f"/{SERVICE}/Say",
            request_serializer=pb.SayRequest.SerializeToString,
            response_deserializer=pb.SayResponse.FromString,
        )
        answer = await say(pb.SayRequest(text="hello"), timeout=DEADLINE_S)
        assert answer.text == "hello"
        await echo.until_logged("call", method=f"/{SERVICE}/Say", code="OK")
        health = health_pb2_grpc.HealthStub(channel)
        status = await health.Check(
            health_pb2.HealthCheckRequest(service=SERVICE), timeout=DEADLINE_S
        )
        assert status.status == health_pb2.HealthCheckResponse.SERVING


async def test_its_rules_are_those_of_the_proto(echo: EchoServer) -> None:
    async with grpc.aio.insecure_channel(echo.address) as channel:
        say = channel.unary_unary(
            f"/{SERVICE}/Say",
            request_serializer=pb.SayRequest.SerializeToString,
            response_deserializer=pb.SayResponse.FromString,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await say(pb.SayRequest(text="much too long"), timeout=DEADLINE_S)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
