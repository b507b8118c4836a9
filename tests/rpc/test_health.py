"""Health and reflection, as probes and tools ask for them; on each face."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import (  # type: ignore[import-untyped]  # has none
    health_pb2,
    health_pb2_grpc,
)
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]  # has none
    reflection_pb2,
)

from tests.support.echo_server import EchoServer

Question = reflection_pb2.ServerReflectionRequest
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
async def channel(echo: EchoServer) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(echo.address) as channel:
        yield channel


async def test_health_names_every_service(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "tests.echo.v1.EchoService"):
        request = health_pb2.HealthCheckRequest(service=service)
        assert (await stub.Check(request)).status == SERVING
        watch = stub.Watch(request)
        assert (await watch.read()).status == SERVING
        watch.cancel()


async def test_health_knows_no_other_service(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="tests.nobody")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(request)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(request)  # which waits for it to come
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_tells_the_contract(channel: grpc.aio.Channel, version: str) -> None:
    ask: Any = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=Question.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    questions = [
        Question(list_services=""),
        Question(file_containing_symbol="tests.echo.v1.EchoService"),
        Question(file_by_filename="buf/validate/validate.proto"),
        Question(file_containing_symbol="tests.nobody"),
    ]
    call = ask()
    answers = []
    for question in questions:
        await call.write(question)
        answers.append(await call.read())
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK
    listed, echo, validate, nobody = answers
    names = {service.name for service in listed.list_services_response.service}
    assert {"tests.echo.v1.EchoService", "grpc.health.v1.Health"} <= names
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(raw)
        for raw in echo.file_descriptor_response.file_descriptor_proto
    ]
    assert "echo.proto" in {file.name for file in files}
    assert validate.file_descriptor_response.file_descriptor_proto
    assert nobody.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
