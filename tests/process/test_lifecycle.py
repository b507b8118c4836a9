"""How a process starts and stops, seen from outside."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from services.rpc.client import connect
from services.rpc.errors import DependencyUnavailableError, ShuttingDownError
from tests.process.conftest import EchoProcess, StartEcho
from tests.support.echo_service import pb, pb_grpc


async def test_it_says_where_it_listens_and_serves(start_echo: StartEcho) -> None:
    async with start_echo() as echo:
        await echo.until_ready()
        async with connect(echo.address) as channel:
            answer = await pb_grpc.EchoServiceStub(channel).Say(pb.SayRequest(text="hello"))
        assert answer.text == "hello"
        assert echo.lines("listening")[0]["address"] == echo.address


@pytest.mark.parametrize("start_echo", ["envoy"], indirect=True)
@pytest.mark.parametrize("cores", [1, 2])
async def test_with_one_core_the_threads_of_envoy_do_not_interrupt_others(
    start_echo: StartEcho, cores: int
) -> None:
    all_cores = os.sched_getaffinity(0)
    assert len(all_cores) >= cores, "this test needs two cores"
    os.sched_setaffinity(0, sorted(all_cores)[:cores])
    try:
        async with start_echo() as echo:
            await echo.until_ready()
            threads = os.listdir(f"/proc/{echo.process.pid}/task")  # noqa: PTH208 (names are numbers)
            policies = {os.sched_getscheduler(int(thread)) for thread in threads}
    finally:
        os.sched_setaffinity(0, all_cores)
    assert policies == ({os.SCHED_BATCH, os.SCHED_OTHER} if cores == 1 else {os.SCHED_OTHER})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_it_finishes_what_is_under_way(
    start_echo: StartEcho, number: signal.Signals
) -> None:
    async with start_echo() as echo:
        await echo.until_ready()
        async with connect(echo.address) as channel:
            stub: Any = pb_grpc.EchoServiceStub(channel)
            slow = asyncio.ensure_future(stub.Say(pb.SayRequest(behaviour="slow")))
            await echo.until_logged("waiting")
            echo.process.send_signal(number)
            await echo.until_logged("stopping")
            with pytest.raises(ShuttingDownError):
                await stub.Say(pb.SayRequest(text="late"))
            assert (await slow).text == "done"
            assert await echo.status() == 0
        assert echo.lines("stopping")[0]["signal"] == number.name
        assert echo.lines("stopped")
        assert [line["code"] for line in echo.lines("call")] == ["UNAVAILABLE", "OK"]


async def test_what_does_not_finish_in_time_is_cut_short(start_echo: StartEcho) -> None:
    async with start_echo({"drain_s": "0.1"}) as echo:
        await echo.until_ready()
        async with connect(echo.address) as channel:
            call = pb_grpc.EchoServiceStub(channel).Say(pb.SayRequest(behaviour="wait"))
            waiting = asyncio.ensure_future(call)
            await echo.until_logged("waiting")
            echo.process.terminate()
            with pytest.raises(DependencyUnavailableError):
                await waiting
            assert await echo.status() == 0
        assert echo.lines("drain_cut_short")
        assert [line["code"] for line in echo.lines("call")] == ["CANCELLED"]


async def test_a_second_signal_ends_it_at_once(start_echo: StartEcho) -> None:
    async with start_echo({"drain_s": "60"}) as echo:
        await echo.until_ready()
        async with connect(echo.address) as channel:
            call = pb_grpc.EchoServiceStub(channel).Say(pb.SayRequest(behaviour="wait"))
            waiting = asyncio.ensure_future(call)
            await echo.until_logged("waiting")
            echo.process.terminate()
            await echo.until_logged("stopping")
            echo.process.terminate()
            assert await echo.status() == -signal.SIGTERM
            with pytest.raises(DependencyUnavailableError):
                await waiting


async def test_check_validates_and_exits(start_echo: StartEcho) -> None:
    async with start_echo({"fail_at_start": "bug"}, "--check") as echo:
        assert await echo.status() == 0
        assert echo.text() == ""


async def test_check_reports_every_mistake_together(start_echo: StartEcho) -> None:
    wrong = {"listen": "nowhere", "drain_s": "-1", "networks": "{", "lisen": "x"}
    async with start_echo(wrong, "--check") as echo:
        assert await echo.status() == 2
        for variable in ("LISTEN", "DRAIN_S", "NETWORKS", "LISEN"):
            assert f"TOLLMESH_ECHO_{variable}: " in echo.text()
        assert "did you mean TOLLMESH_ECHO_LISTEN?" in echo.text()


async def _failure(echo: EchoProcess) -> dict[str, Any]:
    assert await echo.status() == 1
    (line,) = echo.lines("process_failed")
    assert len(echo.text().splitlines()) == 1
    return line


async def test_a_failure_that_explains_itself_is_one_clear_line(start_echo: StartEcho) -> None:
    async with start_echo({"fail_at_start": "os"}) as echo:
        line = await _failure(echo)
    assert line["level"] == "critical"
    assert "no database at 127.0.0.1:4500" in line["error"]
    assert "exception" not in line


async def test_a_bug_at_start_has_its_traceback_in_the_line(start_echo: StartEcho) -> None:
    async with start_echo({"fail_at_start": "bug"}) as echo:
        line = await _failure(echo)
    assert line["error"] == "ZeroDivisionError: a bug"
    assert "echo_process.py" in line["exception"]


async def test_an_address_in_use_is_said_in_one_line(start_echo: StartEcho) -> None:
    async with start_echo() as first:
        await first.until_ready()
        taken = first.address
        async with start_echo({"listen": taken}) as second:
            line = await _failure(second)
    assert f"cannot listen on {taken}" in line["error"]


async def test_it_stops_although_nobody_reads_its_log(start_echo: StartEcho) -> None:
    reader, writer = os.pipe()
    async with start_echo(output=writer) as echo:
        os.close(writer)
        await echo.until_ready()
        os.close(reader)
        echo.process.terminate()
        await echo.status()
