"""Handlers that are plain functions: what they answer, refuse and get wrong, on each face."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.rpc.errors import DependencyUnavailableError, InternalError
from tests.rpc.conftest import Stub
from tests.support.echo_server import EchoServer, running_echo
from tests.support.echo_service import Message, pb

ASK = "/tests.echo.v1.EchoService/Ask"


@pytest.fixture
def own_echo(face: str, tmp_path: Path) -> Iterator[EchoServer]:
    """A server of the test's own."""
    with running_echo(face, tmp_path / "echo", {"drain_s": "0.1"}) as server:
        yield server


async def _ask(stub: Stub, request: Message) -> Message:
    return await stub.Ask(request)


async def test_they_answer_later(stub: Stub) -> None:
    texts = [str(number) for number in range(50)]
    asked = [_ask(stub, pb.SayRequest(text=text)) for text in texts]
    assert [answer.text for answer in await asyncio.gather(*asked)] == texts


async def test_they_answer_now(echo: EchoServer, stub: Stub) -> None:
    ids = (("x-request-id", f"now-{id(stub)}"),)
    answer = await stub.Ask(pb.SayRequest(text="at once", behaviour="now"), metadata=ids)
    assert answer.text == "at once"
    await echo.until_logged("call", method=ASK, request_id=ids[0][1], code="OK")


@pytest.mark.parametrize(
    "request_", [pb.SayRequest(behaviour="raise"), pb.SayRequest(text="bad")], ids=["now", "later"]
)
async def test_what_goes_wrong_in_them_is_an_incident(
    echo: EchoServer, stub: Stub, request_: Message
) -> None:
    with pytest.raises(InternalError) as caught:
        await stub.Ask(request_)
    incident_id = caught.value.metadata["incident_id"]
    failure = await echo.until_logged("call_failed", incident_id=incident_id)
    line = await echo.until_logged("call", incident_id=incident_id)
    assert (line["method"], line["code"]) == (ASK, "INTERNAL")
    assert failure["request_id"] == line["request_id"]


async def test_they_know_their_call(echo: EchoServer, stub: Stub) -> None:
    ids = (("x-request-id", f"own-{id(stub)}"),)
    seen = (await stub.Ask(pb.SayRequest(behaviour="look"), metadata=ids)).seen
    assert seen["request_id"] == ids[0][1]
    await echo.until_logged("call", method=ASK, request_id=ids[0][1], code="OK")


async def test_one_that_goes_on_when_the_process_ends_is_cut_short(
    own_echo: EchoServer, key: str
) -> None:
    async with own_echo.stub() as stub:
        waiting = asyncio.create_task(_ask(stub, pb.SayRequest(behaviour="wait", key=key)))
        await own_echo.until_step(key, "entered")
        own_echo.process.send_signal(signal.SIGTERM)
        with pytest.raises(DependencyUnavailableError):
            await waiting
        assert await own_echo.status() == 0
    assert own_echo.told(key) == ["entered", "cancelled", "cleaned_up"]
    await own_echo.until_logged("call", method=ASK, code="CANCELLED")
