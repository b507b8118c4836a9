"""SIGTERM: what is under way finishes, nothing new begins, nothing is lost; on each face."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import (  # type: ignore[import-untyped]  # has none
    health_pb2,
    health_pb2_grpc,
)

from services.rpc.errors import DependencyUnavailableError, ShuttingDownError
from tests.rpc.conftest import Stub
from tests.support.deadline import DEADLINE_S
from tests.support.echo_server import EchoServer, running_echo
from tests.support.echo_service import Message, pb

Status = health_pb2.HealthCheckResponse


@pytest.fixture
def echo(face: str, tmp_path: Path) -> Iterator[EchoServer]:
    """A server of the test's own."""
    with running_echo(face, tmp_path / "echo") as server:
        yield server


async def _say(stub: Stub, request: Message) -> Message:
    return await stub.Say(request)


async def _stopping(echo: EchoServer) -> None:
    echo.process.send_signal(signal.SIGTERM)
    await echo.until_logged("stopping")


async def test_calls_of_every_kind_finish_and_new_ones_are_refused(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    hold = pb.SayRequest(behaviour="hold", key=key)
    unary = asyncio.create_task(_say(stub, hold))
    answers = stub.Count(pb.SayRequest(behaviour="hold", key=key, text="a", times=1))
    assert (await answers.read()).text == "a"
    upload, chat = stub.Join(), stub.Chat()
    await upload.write(pb.SayRequest(text="a", key=key))
    await chat.write(pb.SayRequest(text="a", key=key))
    assert (await chat.read()).text == "a"
    await echo.until_step(key, "entered", 4)
    await _stopping(echo)
    for call in (stub.Say(hold), stub.Count(hold).read(), stub.Join(iter([hold]))):
        with pytest.raises(ShuttingDownError) as caught:
            await call
        assert caught.value.retry_after_s == 1.0
    assert echo.process.poll() is None
    echo.open_gate(key)
    assert (await unary).text == "done"
    assert (await answers.read()).text == "done"
    assert await answers.read() is grpc.aio.EOF
    await upload.write(pb.SayRequest(text="b"))
    await upload.done_writing()
    assert (await upload).text == "ab"
    await chat.write(pb.SayRequest(text="b"))
    assert (await chat.read()).text == "b"
    await chat.done_writing()
    assert await chat.read() is grpc.aio.EOF
    assert await echo.status() == 0
    assert echo.told(key).count("entered") == 4


async def test_under_load_whatever_began_is_answered(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    answered: set[str] = set()

    async def call_on(caller: int) -> None:
        for number in range(10_000):
            own = f"{key}{caller:02}{number:04}"
            try:
                await stub.Say(pb.SayRequest(key=own, text="a"))
            except (ShuttingDownError, DependencyUnavailableError):
                return
            answered.add(own)

    load = asyncio.gather(*(call_on(caller) for caller in range(20)))
    async with asyncio.timeout(DEADLINE_S):
        while len(answered) < 200:  # noqa: ASYNC110 (what the load has done so far)
            await asyncio.sleep(0.01)
    await _stopping(echo)
    await load
    assert await echo.status() == 0
    begun = {line["key"] for line in echo.lines("step")}
    assert begun == answered


async def test_health_says_so_and_whoever_watches_does_not_hold_it_up(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    async with grpc.aio.insecure_channel(echo.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="tests.echo.v1.EchoService"))
        assert (await watch.read()).status == Status.SERVING
        held = asyncio.create_task(_say(stub, pb.SayRequest(behaviour="hold", key=key)))
        await echo.until_step(key, "entered")
        await _stopping(echo)
        assert (await watch.read()).status == Status.NOT_SERVING
        check = await health.Check(health_pb2.HealthCheckRequest())
        assert check.status == Status.NOT_SERVING
        echo.open_gate(key)
        await held
        assert await echo.status() == 0


async def test_what_is_cut_short_still_cleans_up(face: str, tmp_path: Path, key: str) -> None:
    with running_echo(face, tmp_path / "echo", {"drain_s": "0.1"}) as echo:
        async with echo.stub() as stub:
            waiting = asyncio.create_task(
                _say(stub, pb.SayRequest(behaviour="wait", key=f"{key}1"))
            )
            answers = stub.Count(
                pb.SayRequest(behaviour="endless", payload=bytes(65_536), key=f"{key}2")
            )
            assert await answers.read()
            upload = stub.Join()
            await upload.write(pb.SayRequest(text="a", key=f"{key}3"))
            for number in (1, 2, 3):
                await echo.until_step(f"{key}{number}", "entered")
            await _stopping(echo)
            for call in (waiting, upload):
                with pytest.raises(DependencyUnavailableError):
                    await call
            assert await echo.status() == 0
        assert echo.told(f"{key}1") == ["entered", "cancelled", "cleaned_up"]
        assert echo.told(f"{key}2") == ["entered", "cleaned_up"]
        assert echo.told(f"{key}3") == ["entered", "ended"]
        codes = [line["code"] for line in echo.lines("call")]
        assert sorted(codes) == ["CANCELLED"] * 3


async def test_the_port_is_free_again(echo: EchoServer, tmp_path: Path) -> None:
    address = echo.address
    assert await echo.stop() == 0
    with running_echo(echo.face, tmp_path / "next", {"listen": address}) as successor:
        async with successor.stub() as stub:
            assert (await stub.Say(pb.SayRequest(text="on"))).text == "on"


async def test_every_line_of_the_log_is_one_of_ours(echo: EchoServer, stub: Stub) -> None:
    await stub.Say(pb.SayRequest(text="a"))
    assert await echo.stop() == 0
    assert [line for line in echo.text().splitlines() if not line.startswith("{")] == []
    assert len(echo.lines("call")) == 1
