"""Deadlines: they cross every hop, and a handler always gets to clean up; on each face."""

from __future__ import annotations

import time

import grpc
import pytest

from services.rpc.call import Call
from services.rpc.errors import DeadlineExceededError, InternalError
from services.rpc.methods import methods_of
from services.rpc.pipeline import Limits, Pipeline
from tests.rpc.conftest import Stub
from tests.support.echo_server import EchoServer
from tests.support.echo_service import EchoServicer, Message, pb
from tests.support.http2_peer import Http2Peer

SAY = "/tests.echo.v1.EchoService/Say"
ASK = "/tests.echo.v1.EchoService/Ask"
COUNT = "/tests.echo.v1.EchoService/Count"


def _wait(key: str) -> Message:
    return pb.SayRequest(behaviour="wait", key=key)


async def _cleaned_up(echo: EchoServer, key: str) -> None:
    await echo.until_step(key, "cleaned_up")
    assert echo.told(key) == ["entered", "cancelled", "cleaned_up"]


@pytest.mark.parametrize("kind", ["Say", "Ask"])
async def test_a_call_ends_at_its_deadline_on_both_sides(
    echo: EchoServer, stub: Stub, key: str, kind: str
) -> None:
    with pytest.raises(DeadlineExceededError):
        await getattr(stub, kind)(_wait(key), timeout=0.1)
    await _cleaned_up(echo, key)


async def test_a_stream_ends_at_its_deadline_on_both_sides(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    with pytest.raises(DeadlineExceededError):
        [answer async for answer in stub.Count(_wait(key), timeout=0.1)]
    await _cleaned_up(echo, key)


@pytest.mark.parametrize("kind", ["Join", "Chat"])
async def test_a_callers_stream_ends_at_its_deadline_on_both_sides(
    echo: EchoServer, stub: Stub, key: str, kind: str
) -> None:
    call = getattr(stub, kind)(timeout=0.15)
    await call.write(pb.SayRequest(text="a", key=key))
    if kind == "Chat":
        assert (await call.read()).text == "a"
    with pytest.raises(DeadlineExceededError):
        await (call if kind == "Join" else call.read())
    await echo.until_step(key, "ended")
    if kind == "Join":  # whose handler does something at the end of the stream
        assert echo.told(key) == ["entered", "ended"]  # never complete


async def test_a_deadline_passes_in_the_middle_of_a_stream_of_answers(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    request = pb.SayRequest(behaviour="endless", payload=b"x", key=key)
    answers = stub.Count(request, timeout=0.15)
    assert (await anext(answers)).payload == b"x"
    with pytest.raises(DeadlineExceededError):
        [answer async for answer in answers]
    await echo.until_step(key, "cleaned_up")


@pytest.mark.parametrize("path", [SAY, ASK, COUNT])
async def test_a_caller_that_keeps_no_clock_is_told_when_its_time_is_over(
    echo: EchoServer, key: str, path: str
) -> None:
    async with Http2Peer.connected(echo.address) as peer:
        stream = await peer.call(path, _wait(key), {"grpc-timeout": "100m"})
        answer = await peer.answer(stream)
    assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED or answer.reset is not None
    await _cleaned_up(echo, key)


@pytest.mark.parametrize("told", ["1n", "1u", "0m", "0S"])
async def test_a_call_whose_time_is_over_on_arrival_is_not_begun(
    echo: EchoServer, key: str, told: str
) -> None:
    async with Http2Peer.connected(echo.address) as peer:
        stream = await peer.call(SAY, _wait(key), {"grpc-timeout": told})
        answer = await peer.answer(stream)
        assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED or answer.reset is not None
        after = await peer.call(SAY, pb.SayRequest(text="on"))
        assert (await peer.answer(after)).code is grpc.StatusCode.OK
    if told.startswith("0"):
        assert echo.told(key) == []
    elif echo.told(key):  # a library may round up, and be early enough then
        await _cleaned_up(echo, key)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("2H", 7200),
        ("3M", 180),
        ("9S", 9),
        ("9000m", 9),
        ("9000000u", 9),
        ("99999999n", 0.1),
        ("99999999S", 99_999_999),
        ("99999999H", None),
        ("00000009S", 9),
    ],
)
async def test_a_timeout_is_understood_in_every_unit(
    echo: EchoServer, told: str, seconds: float | None
) -> None:
    async with Http2Peer.connected(echo.address) as peer:
        stream = await peer.call(SAY, pb.SayRequest(behaviour="look"), {"grpc-timeout": told})
        answer = await peer.answer(stream)
    assert answer.code is grpc.StatusCode.OK
    left = pb.SayResponse.FromString(answer.message).seen["remaining_s"]
    if seconds is None:  # eleven thousand years: the same as none
        assert left == "None" or float(left) > 1_000_000
    else:
        assert 0.8 * seconds - 0.05 < float(left) <= 1.05 * seconds


@pytest.mark.parametrize("told", ["abc", "5", "5x", "-1S", "1.5S", "S", "123456789S", " 5S", ""])
async def test_a_timeout_that_is_none_never_breaks_the_connection(
    echo: EchoServer, told: str
) -> None:
    async with Http2Peer.connected(echo.address) as peer:
        stream = await peer.call(SAY, pb.SayRequest(text="x"), {"grpc-timeout": told})
        answer = await peer.answer(stream)
        assert answer.code is not None
        assert answer.code is not grpc.StatusCode.UNKNOWN
        after = await peer.call(SAY, pb.SayRequest(text="on"))
        assert (await peer.answer(after)).code is grpc.StatusCode.OK


async def test_a_deadline_crosses_two_hops(echo: EchoServer, stub: Stub, key: str) -> None:
    middle = pb.SayRequest(behaviour="forward", target=echo.address, next=_wait(key))
    request = pb.SayRequest(behaviour="forward", target=echo.address, next=middle)
    with pytest.raises(DeadlineExceededError):
        await stub.Say(request, timeout=0.5)
    left = (await echo.until_step(key, "entered"))["remaining_s"]
    assert 0 < left < 1  # not the channels' five seconds; grpc rounds up
    await _cleaned_up(echo, key)


async def test_a_stricter_deadline_of_a_hop_holds_for_that_hop(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    request = pb.SayRequest(behaviour="forward", target=echo.address, next=_wait(key), seconds=0.1)
    with pytest.raises(DeadlineExceededError):
        await stub.Say(request, timeout=5)
    left = (await echo.until_step(key, "entered"))["remaining_s"]
    assert left < 1  # not the caller's five seconds; grpc rounds up
    await _cleaned_up(echo, key)


async def test_a_looser_deadline_of_a_hop_does_not_loosen_the_callers(
    echo: EchoServer, stub: Stub
) -> None:
    look = pb.SayRequest(behaviour="look")
    request = pb.SayRequest(behaviour="forward", target=echo.address, next=look, seconds=60)
    seen = (await stub.Say(request, timeout=2)).seen
    assert float(seen["first.remaining_s"]) < 2.5
    assert float(seen["remaining_s"]) < 2.5


async def test_a_timeout_of_the_handlers_own_is_a_fault(stub: Stub) -> None:
    with pytest.raises(InternalError):
        await stub.Say(pb.SayRequest(behaviour="own_timeout"))


async def test_what_must_be_settled_outlives_the_deadline(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    request = pb.SayRequest(behaviour="settle", target=echo.address, key=key)
    with pytest.raises(DeadlineExceededError):
        await stub.Say(request, timeout=0.1)
    await echo.until_step(key, "settled")
    assert echo.told(key) == ["entered", "refused", "settled"]


async def test_the_log_says_that_a_deadline_ended_a_call(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    with pytest.raises(DeadlineExceededError):
        await stub.Say(_wait(key), timeout=0.1, metadata=(("x-request-id", key),))
    line = await echo.until_logged("call", request_id=key)
    assert line["code"] == "DEADLINE_EXCEEDED"
    assert 50 < line["duration_ms"] < 5000


async def test_a_call_that_arrives_too_late_is_refused_before_its_handler() -> None:
    entered = []

    async def wait(_: Message, __: Call) -> Message:
        entered.append(True)

    (say, *_) = methods_of(EchoServicer(wait=wait))
    call = Call(say.path, deadline=time.monotonic() - 0.001)
    with pytest.raises(DeadlineExceededError):
        await Pipeline(Limits(), {}).unary_answer(say)(_wait("").SerializeToString(), call)
    assert not entered
