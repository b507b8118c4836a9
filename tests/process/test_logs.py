"""What a process logs, and what it never logs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Callable, Iterator

import pytest

from services.process import logs
from services.rpc.client import connect
from services.rpc.errors import ServiceError
from tests.process.conftest import StartEcho
from tests.support.deadline import DEADLINE_S
from tests.support.echo_service import Message, pb, pb_grpc

KEY = "tm_local_k1_hunter2hunter2"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def _call(address: str, request: Message, kind: str = "Say") -> None:
    ids = (("x-request-id", "r-1"), ("traceparent", PARENT), ("authorization", f"Bearer {KEY}"))
    async with connect(address) as channel:
        call = getattr(pb_grpc.EchoServiceStub(channel), kind)(request, metadata=ids)
        try:
            if kind == "Say":
                await call
            else:
                [answer async for answer in call]
        except ServiceError:
            pass


async def test_each_call_is_one_canonical_line(start_echo: StartEcho) -> None:
    async with start_echo() as echo:
        await echo.until_ready()
        await _call(echo.address, pb.SayRequest(behaviour="note", account_id="a1"))
        await _call(echo.address, pb.SayRequest(behaviour="refuse"))
        await _call(echo.address, pb.SayRequest(times=2), "Count")
        echo.process.terminate()
        await echo.status()
        noted, refused, streamed = echo.lines("call")
    assert noted["method"] == "/tests.echo.v1.EchoService/Say"
    assert noted["code"] == "OK"
    assert noted["account_id"] == "a1"
    assert noted["replayed"] is True
    assert noted["request_id"] == "r-1"
    assert noted["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert noted["service"] == "echo"
    assert noted["level"] == "info"
    assert noted["peer"].startswith("127.0.0.1:")
    assert noted["identity"] == ""
    assert 0 < noted["duration_ms"] < 10_000
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+Z", noted["timestamp"])
    assert "reason" not in noted
    assert (refused["code"], refused["reason"]) == ("NOT_FOUND", "OBJECT_NOT_FOUND")
    assert refused["error"] == "not there"
    assert (streamed["method"], streamed["code"]) == ("/tests.echo.v1.EchoService/Count", "OK")


async def test_a_fault_is_logged_in_full_under_its_incident(start_echo: StartEcho) -> None:
    async with start_echo() as echo:
        await echo.until_ready()
        await _call(echo.address, pb.SayRequest(behaviour="break", text="me"))
        echo.process.terminate()
        await echo.status()
        (fault,), (call,) = echo.lines("call_failed"), echo.lines("call")
    assert "ValueError: broken by me" in fault["exception"]
    assert fault["level"] == "error"
    assert fault["request_id"] == call["request_id"] == "r-1"
    assert fault["incident_id"] == call["incident_id"]
    assert (call["code"], call["reason"]) == ("INTERNAL", "INTERNAL")


async def test_lines_of_a_handler_carry_the_calls_id(start_echo: StartEcho) -> None:
    async with start_echo() as echo:
        await echo.until_ready()
        await _call(echo.address, pb.SayRequest(behaviour="slow"))
        assert echo.lines("waiting")[0]["request_id"] == "r-1"
        assert "request_id" not in echo.lines("listening")[0]


async def test_credentials_are_never_logged(start_echo: StartEcho) -> None:
    async with start_echo({"log_level": "debug"}) as echo:
        await echo.until_ready()
        for behaviour in ("", "note", "refuse", "break"):
            await _call(echo.address, pb.SayRequest(behaviour=behaviour))
        echo.process.terminate()
        await echo.status()
        assert len(echo.lines("call")) == 4
        assert "hunter2" not in echo.text()


async def test_above_its_level_a_line_is_not_written(start_echo: StartEcho) -> None:
    async with start_echo({"log_level": "error"}) as echo:
        await echo.until_ready()
        await _call(echo.address, pb.SayRequest())
        await _call(echo.address, pb.SayRequest(behaviour="break"))
        echo.process.terminate()
        await echo.status()
        assert not echo.lines("call")
        assert len(echo.lines("call_failed")) == 1


async def test_the_console_format_is_for_people(start_echo: StartEcho) -> None:
    async with start_echo({"log_format": "console"}) as echo:
        await echo.until_ready()
        await _call(echo.address, pb.SayRequest(account_id="a1"))
        echo.process.terminate()
        await echo.status()
        (line,) = [line for line in echo.text().splitlines() if "EchoService/Say" in line]
    assert "account_id=a1" in line
    assert not line.startswith("{")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bytes]]:
    """Logging configured in this process, for one test; gives what was written."""
    handlers, level = logging.root.handlers[:], logging.root.level
    reader, writer = os.pipe()
    monkeypatch.setattr(logs, "_STDERR", writer)
    monkeypatch.setattr(logs, "_chain", [])
    logs.configure("info", "json", service="test")
    yield lambda: os.read(reader, 65_536)
    logs.configure("info", "json")
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    os.close(reader)
    os.close(writer)


async def test_batched_lines_are_written_by_themselves(written: Callable[[], bytes]) -> None:
    lines = logs.BatchedLines("tick")
    lines.add({"n": 1})
    lines.add({"n": 2})
    text = await asyncio.wait_for(asyncio.to_thread(written), DEADLINE_S)
    assert [json.loads(line)["n"] for line in text.splitlines()] == [1, 2]


async def test_many_batched_lines_do_not_wait_for_the_time(
    written: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_BATCH_S", 3600)
    monkeypatch.setattr(logs, "_BATCH_BYTES", 1000)
    lines = logs.BatchedLines("tick")
    for n in range(20):
        lines.add({"n": n})
    text = await asyncio.wait_for(asyncio.to_thread(written), DEADLINE_S)
    assert [json.loads(line)["n"] for line in text.splitlines()] == list(range(20))


async def test_a_log_that_nobody_reads_does_not_hurt_who_adds_a_line(
    written: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(logs, "_STDERR", writer)
    monkeypatch.setattr(logs, "_BATCH_BYTES", 10)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    lines = logs.BatchedLines("tick")
    for n in range(3):
        lines.add({"n": n})
        await asyncio.sleep(0)
    os.close(writer)
    del written


def test_no_value_costs_a_line(written: Callable[[], bytes]) -> None:
    logs.get_logger("tests").info("odd", text="\udc80", number=2**70, thing={1, 2}, raw=b"\xff")
    line = json.loads(written())
    assert line["event"] == "odd"
    assert line["number"] == 2**70
    assert line["text"] == "\udc80"


def test_lines_of_libraries_come_the_same_way(written: Callable[[], bytes]) -> None:
    try:
        int("inside a library")
    except ValueError:
        logging.getLogger("some.library").exception("it %s", "broke")
    logging.getLogger("some.library").info("chatter")
    (line,) = [json.loads(text) for text in written().splitlines()]
    assert (line["event"], line["message"], line["level"]) == ("library", "it broke", "error")
    assert line["module"] == "some.library"
    assert "inside a library" in line["exception"]


def _break(credential: str) -> None:
    raise RuntimeError(len(credential))


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_where_and_never_the_variables(
    form: logs.LogFormat, written: Callable[[], bytes]
) -> None:
    logs.configure("info", form)
    credential = KEY[::-1]  # stands in no line of the source
    try:
        _break(credential)
    except RuntimeError:
        logs.get_logger("test").exception("broken")
    printed = written().decode()
    assert "in _break" in printed
    assert credential not in printed
