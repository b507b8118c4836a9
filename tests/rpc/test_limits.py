"""What a server refuses, early and with a reason that its caller can act on; on each face."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from services.rpc.errors import (
    InternalError,
    InvalidArgumentError,
    OverloadedError,
)
from tests.rpc.conftest import Stub
from tests.support.deadline import DEADLINE_S
from tests.support.echo_server import EchoServer, running_echo
from tests.support.echo_service import Message, pb

LIMIT = 3
MAX_BYTES = 10_000


@pytest.fixture(scope="module")
def echo(face: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EchoServer]:
    """A server that takes little."""
    settings = {"max_concurrent_calls": str(LIMIT), "max_message_bytes": str(MAX_BYTES)}
    with running_echo(face, tmp_path_factory.mktemp(face) / "small", settings) as server:
        yield server


def _hold(stub: Stub, key: str) -> asyncio.Task[Message]:
    async def hold() -> Message:
        return await stub.Say(pb.SayRequest(behaviour="hold", key=key))

    return asyncio.create_task(hold())


async def _until_let_in(stub: Stub) -> None:
    """Until the server has noticed that calls are over."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await stub.Say(pb.SayRequest(text="in"))
            except OverloadedError:
                await asyncio.sleep(0.01)
            else:
                return


async def test_more_calls_than_the_limit_are_refused_and_the_others_served(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    held = [_hold(stub, key) for _ in range(LIMIT)]
    await echo.until_step(key, "entered", LIMIT)
    with pytest.raises(OverloadedError) as caught:
        await stub.Say(pb.SayRequest(key=key))
    assert caught.value.retry_after_s == 1.0
    with pytest.raises(OverloadedError):
        [answer async for answer in stub.Count(pb.SayRequest(key=key, behaviour="wait"))]
    with pytest.raises(OverloadedError):
        await stub.Join(iter([pb.SayRequest(key=key)]))
    with pytest.raises(OverloadedError):
        await stub.Chat(iter([pb.SayRequest(key=key)])).read()
    echo.open_gate(key)
    assert [answer.text for answer in await asyncio.gather(*held)] == ["done"] * LIMIT
    assert (await stub.Say(pb.SayRequest(text="on"))).text == "on"
    assert echo.told(key) == ["entered"] * LIMIT


async def test_a_burst_is_answered_to_the_last_call(stub: Stub) -> None:
    async def say() -> str:
        try:
            return str((await stub.Say(pb.SayRequest(text="a"))).text)
        except OverloadedError:
            return "refused"

    outcomes = await asyncio.gather(*(say() for _ in range(300)))
    assert set(outcomes) <= {"a", "refused"}
    assert "a" in outcomes


async def test_calls_that_end_badly_give_their_place_back(
    echo: EchoServer, stub: Stub, key: str
) -> None:
    for _ in range(2 * LIMIT):
        with pytest.raises(InvalidArgumentError):
            await stub.Say(pb.SayRequest(text="too long a text"))
    for number in range(2 * LIMIT):
        call = stub.Say(pb.SayRequest(behaviour="wait", key=f"{key}{number}"))
        await echo.until_step(f"{key}{number}", "entered")
        call.cancel()
        await echo.until_step(f"{key}{number}", "cleaned_up")
    await _until_let_in(stub)
    for number in range(2 * LIMIT):
        upload = stub.Join()
        await upload.write(pb.SayRequest(text="a", key=f"{key}u{number}"))
        await echo.until_step(f"{key}u{number}", "entered")
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload  # else the client's library holds on to its stream for a while
        await echo.until_step(f"{key}u{number}", "ended")
    await _until_let_in(stub)
    held = [_hold(stub, key) for _ in range(LIMIT)]  # all places are free again
    await echo.until_step(key, "entered", LIMIT)
    echo.open_gate(key)
    await asyncio.gather(*held)


def _of_size(size: int) -> Message:
    """A request that is so many bytes long on the wire."""
    request = pb.SayRequest(payload=bytes(size))
    return pb.SayRequest(payload=bytes(2 * size - request.ByteSize()))


async def _one(request: Message) -> AsyncIterator[Message]:
    yield request


async def test_a_request_of_exactly_the_limit_is_served(stub: Stub) -> None:
    request = _of_size(MAX_BYTES)
    assert request.ByteSize() == MAX_BYTES
    assert (await stub.Say(request)).payload == request.payload
    await stub.Join(_one(request))
    assert [answer.payload async for answer in stub.Chat(_one(request))] == [request.payload]


async def test_a_request_above_the_limit_is_an_invalid_argument(stub: Stub) -> None:
    request = _of_size(MAX_BYTES + 1)
    for call in (stub.Say(request), stub.Join(_one(request)), stub.Chat(_one(request)).read()):
        with pytest.raises(InvalidArgumentError, match="larger than 10000 bytes"):
            await call


async def test_a_request_far_above_the_limit_does_not_even_arrive(stub: Stub) -> None:
    """There grpcio itself answers, without our details."""
    request = _of_size(1_000_000)
    with pytest.raises((InvalidArgumentError, InternalError)) as caught:
        await stub.Say(request)
    assert "larger" in str(caught.value) or "RESOURCE_EXHAUSTED" in str(caught.value)
    assert (await stub.Say(pb.SayRequest(text="still"))).text == "still"


async def test_a_stream_may_carry_more_than_the_limit_in_all(stub: Stub) -> None:
    async def requests() -> AsyncIterator[Message]:
        for _ in range(100):
            yield _of_size(MAX_BYTES)

    await stub.Join(requests())
    assert len([answer async for answer in stub.Chat(requests())]) == 100
