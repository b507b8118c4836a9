"""What a server refuses, early and with a reason that its caller can act on."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.rpc import (  # type: ignore[import-untyped]  # has none
    error_details_pb2,
    status_pb2,
)
from grpc_health.v1 import (  # type: ignore[import-untyped]  # has none
    health_pb2,
    health_pb2_grpc,
)

from services.rpc.call import Call
from services.rpc.client import connect
from services.rpc.errors import (
    DependencyUnavailableError,
    InternalError,
    InvalidArgumentError,
    OverloadedError,
    ShuttingDownError,
)
from services.rpc.server import Limits
from tests.rpc.conftest import ServeEcho, Stub
from tests.support.echo_service import EchoServicer, Message, pb, pb_grpc


class Gate:
    """A handler that holds its calls until the gate opens."""

    def __init__(self) -> None:
        self.inside = 0
        self.entered = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, _: Message, __: Call) -> Message:
        self.inside += 1
        self.entered.set()
        await self.open.wait()
        return pb.SayResponse(text="done")

    async def until_inside(self, number: int) -> None:
        while self.inside < number:
            self.entered.clear()
            await asyncio.wait_for(self.entered.wait(), 5)


HOLD = pb.SayRequest(behaviour="hold")


def _hold(stub: Stub) -> asyncio.Task[Message]:
    async def hold() -> Message:
        return await stub.Say(HOLD)

    return asyncio.create_task(hold())


async def _say_for_ever(stub: Stub) -> None:
    while True:
        await stub.Say(pb.SayRequest(text="one"))


async def test_more_calls_than_the_limit_are_refused_and_the_others_served(
    serve_echo: ServeEcho,
) -> None:
    gate = Gate()
    limits = Limits(max_concurrent_calls=3)
    async with serve_echo(EchoServicer(hold=gate), limits=limits) as (stub, _):
        held = [_hold(stub) for _ in range(3)]
        await gate.until_inside(3)
        with pytest.raises(OverloadedError) as caught:
            await stub.Say(HOLD)
        with pytest.raises(OverloadedError):
            [answer async for answer in stub.Count(HOLD)]
        gate.open.set()
        assert [answer.text for answer in await asyncio.gather(*held)] == ["done"] * 3
        assert (await stub.Say(HOLD)).text == "done"
    assert gate.inside == 4
    assert caught.value.retry_after_s == 1.0


async def test_calls_that_end_badly_give_their_place_back(serve_echo: ServeEcho) -> None:
    gate = Gate()
    limits = Limits(max_concurrent_calls=1)
    async with serve_echo(EchoServicer(hold=gate), limits=limits) as (stub, _):
        for _ in range(3):
            with pytest.raises(InvalidArgumentError):
                await stub.Say(pb.SayRequest(text="too long a text"))
        for number in range(1, 4):
            call = _hold(stub)
            await gate.until_inside(number)
            call.cancel()
            while True:  # until the server has noticed
                try:
                    await stub.Say(pb.SayRequest(text="in"))
                except OverloadedError:
                    await asyncio.sleep(0.01)
                else:
                    break


async def test_a_refusal_has_one_error_info_and_says_when_to_retry(serve_echo: ServeEcho) -> None:
    limits = Limits(max_concurrent_calls=0)
    async with (
        serve_echo(limits=limits) as (_, server),
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.EchoServiceStub(channel).Say(HOLD)
    trailers = dict(caught.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert status.code == grpc.StatusCode.UNAVAILABLE.value[0]
    kinds = [detail.type_url.rpartition("/")[2] for detail in status.details]
    assert kinds == ["google.rpc.ErrorInfo", "google.rpc.RetryInfo"]
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("tollmesh", "OVERLOADED")


async def test_a_client_that_retries_by_grpcs_own_policy_gets_through(
    serve_echo: ServeEcho,
) -> None:
    attempts: list[str] = []

    async def recover(_: Message, call: Call) -> Message:
        attempts.append(call.metadata.get("grpc-previous-rpc-attempts", "0"))
        if len(attempts) < 3:
            raise OverloadedError
        return pb.SayResponse(text="at last")

    policy = (
        '{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 5,'
        '"initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 1,'
        '"retryableStatusCodes": ["UNAVAILABLE"]}}]}'
    )
    options = [("grpc.service_config", policy)]
    async with (
        serve_echo(EchoServicer(recover=recover)) as (_, server),
        grpc.aio.insecure_channel(server.address, options=options) as channel,
    ):
        answer = await pb_grpc.EchoServiceStub(channel).Say(pb.SayRequest(behaviour="recover"))
    assert answer.text == "at last"
    assert attempts == ["0", "1", "2"]


async def test_a_request_above_the_limit_is_an_invalid_argument(serve_echo: ServeEcho) -> None:
    async with serve_echo(limits=Limits(max_message_bytes=10_000)) as (stub, _):
        assert len((await stub.Say(pb.SayRequest(payload=bytes(9_000)))).payload) == 9_000
        with pytest.raises(InvalidArgumentError, match="larger than 10000 bytes"):
            await stub.Say(pb.SayRequest(payload=bytes(11_000)))
        with pytest.raises(InvalidArgumentError, match="larger than 10000 bytes"):
            await stub.Join(iter([pb.SayRequest(payload=bytes(11_000))]))


async def test_a_request_far_above_the_limit_does_not_even_arrive(serve_echo: ServeEcho) -> None:
    async with serve_echo(limits=Limits(max_message_bytes=10_000)) as (stub, _):
        with pytest.raises(InternalError) as caught:
            await stub.Say(pb.SayRequest(payload=bytes(1_000_000)))
        assert "RESOURCE_EXHAUSTED" in str(caught.value)
        assert (await stub.Say(pb.SayRequest(text="still"))).text == "still"


async def test_bytes_that_are_no_message_are_an_invalid_argument(serve_echo: ServeEcho) -> None:
    async with (
        serve_echo() as (_, server),
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        say: Message = channel.unary_unary("/tests.echo.v1.EchoService/Say")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await say(b"\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "the request is not a well-formed message"


async def test_a_draining_server_finishes_what_is_under_way_and_takes_nothing_new(
    serve_echo: ServeEcho,
) -> None:
    gate = Gate()
    async with serve_echo(EchoServicer(hold=gate), drain_s=5) as (stub, server):
        held = _hold(stub)
        await gate.until_inside(1)
        draining = asyncio.create_task(server.drain())
        with pytest.raises(ShuttingDownError):
            await _say_for_ever(stub)
        assert not draining.done()
        gate.open.set()
        assert (await held).text == "done"
        await draining


async def test_a_draining_server_says_so_to_those_who_ask_for_its_health(
    serve_echo: ServeEcho,
) -> None:
    gate = Gate()
    not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
    async with (
        serve_echo(EchoServicer(hold=gate), drain_s=5) as (stub, server),
        connect(server.address) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="tests.echo.v1.EchoService"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        held = _hold(stub)
        await gate.until_inside(1)
        draining = asyncio.create_task(server.drain())
        assert (await watch.read()).status == not_serving
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == not_serving
        gate.open.set()
        await held
        await asyncio.wait_for(draining, 3)  # whoever watches does not hold it up


async def test_what_is_cut_short_still_cleans_up(serve_echo: ServeEcho) -> None:
    entered, cleaned_up = asyncio.Event(), asyncio.Event()

    async def serve(_: Message, __: Call) -> Message:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.3)
            cleaned_up.set()

    async with serve_echo(EchoServicer(hold=serve), drain_s=0.05) as (stub, server):
        held = _hold(stub)
        await entered.wait()
        await server.drain()
        assert cleaned_up.is_set()
        with pytest.raises(DependencyUnavailableError):
            await held
