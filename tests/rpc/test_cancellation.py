"""Callers that go away: the handler ends, cleans up, and never takes a part for the whole."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import pytest

from tests.rpc.conftest import Stub
from tests.support.echo_server import ROOT, EchoServer
from tests.support.echo_service import Message, pb
from tests.support.http2_peer import Http2Peer, framed, request_headers

COUNT = "/tests.echo.v1.EchoService/Count"
JOIN = "/tests.echo.v1.EchoService/Join"
REPETITIONS = 40


def _wait(key: str) -> Message:
    return pb.SayRequest(behaviour="wait", key=key)


async def _awaited(call: Stub) -> Message:
    return await call


async def _cleaned_up(echo: EchoServer, key: str) -> None:
    await echo.until_step(key, "cleaned_up")
    assert echo.told(key)[:3] == ["entered", "cancelled", "cleaned_up"]


@pytest.mark.parametrize("kind", ["Say", "Ask", "Count"])
async def test_a_caller_that_goes_away_cancels_the_handler(
    echo: EchoServer, stub: Stub, key: str, kind: str
) -> None:
    call = getattr(stub, kind)(_wait(key))
    waiting = asyncio.ensure_future(call.read() if kind == "Count" else _awaited(call))
    await echo.until_step(key, "entered")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await _cleaned_up(echo, key)


@pytest.mark.parametrize("kind", ["Join", "Chat"])
async def test_a_caller_that_goes_away_in_its_stream_cancels_the_handler(
    echo: EchoServer, stub: Stub, key: str, kind: str
) -> None:
    call = getattr(stub, kind)()
    await call.write(_wait(key))
    await echo.until_step(key, "entered")
    call.cancel()
    await _cleaned_up(echo, key)
    await echo.until_step(key, "ended")


async def test_a_reader_that_goes_away_ends_the_stream_where_it_stands(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    answers = stub.Count(pb.SayRequest(behaviour="endless", payload=bytes(65_536), key=key))
    for _ in range(3):
        await anext(answers)
    answers.cancel()
    await echo.until_step(key, "cleaned_up")


async def test_a_handler_that_is_held_back_cleans_up_whole_when_its_reader_goes(
    echo: EchoServer, key: str
) -> None:
    """At several moments: that the reader is gone may be heard of twice at once."""

    async def leave(number: int) -> None:
        request = pb.SayRequest(behaviour="endless", payload=bytes(65_536), key=f"{key}{number:04}")
        async with Http2Peer.connected(echo.address) as peer:
            peer.reading = False
            await peer.call(COUNT, request)
            await asyncio.sleep(number * 0.002)

    await asyncio.gather(*(leave(number) for number in range(REPETITIONS)))
    for number in range(REPETITIONS):
        own = f"{key}{number:04}"
        if "entered" in echo.told(own):
            await echo.until_step(own, "cleaned_up")


async def test_a_partner_in_a_conversation_that_goes_away_ends_it(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    chat = stub.Chat()
    await chat.write(pb.SayRequest(text="a", key=key))
    assert (await chat.read()).text == "a"
    chat.cancel()
    await echo.until_step(key, "ended")


async def test_cancellation_crosses_a_hop(echo: EchoServer, stub: Stub, key: str) -> None:
    call = stub.Say(pb.SayRequest(behaviour="forward", target=echo.address, next=_wait(key)))
    await echo.until_step(key, "entered")
    call.cancel()
    await _cleaned_up(echo, key)


async def test_the_log_says_that_a_call_was_cancelled(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    call = stub.Say(_wait(key), metadata=(("x-request-id", key),))
    await echo.until_step(key, "entered")
    call.cancel()
    assert (await echo.until_logged("call", request_id=key))["code"] == "CANCELLED"


CLIENT = """
import sys, grpc
from tests.support.echo_service import pb, pb_grpc
address, kind, key, behaviour = sys.argv[1:]
def requests():
    yield pb.SayRequest(behaviour=behaviour, key=key, text="a")
    import time; time.sleep(60)
stub = pb_grpc.EchoServiceStub(grpc.insecure_channel(address))
first = next(requests())
method = getattr(stub, kind)
for _ in method(first) if kind == "Count" else method(requests()): pass
"""


@pytest.mark.parametrize(
    ("kind", "behaviour", "until"),
    [("Count", "wait", "cleaned_up"), ("Chat", "wait", "cleaned_up"), ("Chat", "", "ended")],
)
async def test_a_client_that_is_killed_leaves_nothing_behind(
    echo: EchoServer, key: str, kind: str, behaviour: str, until: str
) -> None:
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, echo.address, kind, key, behaviour, cwd=ROOT
    )
    try:
        await echo.until_step(key, "entered")
    finally:
        os.kill(client.pid, signal.SIGKILL)
        await client.wait()
    await echo.until_step(key, until)


Leave = Callable[[Http2Peer, int], Awaitable[None]]


async def _by_reset(peer: Http2Peer, stream: int) -> None:
    peer.reset(stream)


async def _by_closing(peer: Http2Peer, _: int) -> None:
    peer.close()


async def _by_resetting_the_connection(peer: Http2Peer, _: int) -> None:
    peer.close(reset=True)


async def _in_the_middle_of_a_message(peer: Http2Peer, stream: int) -> None:
    await peer.send(stream, framed(bytes(100_000))[:50_000])
    peer.close()


WAYS: list[Leave] = [
    _by_reset,
    _by_closing,
    _by_resetting_the_connection,
    _in_the_middle_of_a_message,
]


@pytest.mark.parametrize("leave", WAYS, ids=lambda way: str(way.__name__).strip("_"))
async def test_an_upload_that_was_broken_off_never_looks_complete(
    echo: EchoServer, key: str, leave: Leave
) -> None:
    async def break_off(number: int) -> None:
        own = f"{key}{number:04}"
        async with Http2Peer.connected(echo.address) as peer:
            stream = await peer.start(request_headers(JOIN))
            await peer.send(stream, framed(pb.SayRequest(text="a", key=own).SerializeToString()))
            if number % 2:  # else it leaves at once
                await echo.until_step(own, "entered")
            await leave(peer, stream)

    for start in range(0, REPETITIONS, 10):
        await asyncio.gather(*(break_off(number) for number in range(start, start + 10)))
    for number in range(REPETITIONS):
        own = f"{key}{number:04}"
        if number % 2:
            await echo.until_step(own, "ended")
        assert "complete" not in echo.told(own)


async def test_an_upload_that_a_grpc_client_gives_up_never_looks_complete(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    for number in range(REPETITIONS):
        own = f"{key}{number:04}"
        call = stub.Join()
        await call.write(pb.SayRequest(text="a", key=own))
        await echo.until_step(own, "entered")
        call.cancel()
        await echo.until_step(own, "ended")
        assert echo.told(own) == ["entered", "ended"]
    call = stub.Join()
    await call.write(pb.SayRequest(text="a", key=key))
    await call.done_writing()
    await call
    assert echo.told(key) == ["entered", "complete", "ended"]
