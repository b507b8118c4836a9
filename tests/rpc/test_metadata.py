"""What travels beside the messages, and what a handler sees of its call."""

from __future__ import annotations

import pytest

from tests.rpc.conftest import Stub
from tests.support.echo_service import pb

LOOK = pb.SayRequest(behaviour="look")


async def test_a_handler_sees_the_call_and_not_the_library(stub: Stub) -> None:
    metadata = (("x-colour", "blue"), ("x-raw-bin", b"\x00"))
    seen = (await stub.Say(LOOK, timeout=3, metadata=metadata)).seen
    assert seen["method"] == "/tests.echo.v1.EchoService/Say"
    assert seen["metadata.x-colour"] == "blue"
    assert not [name for name in seen if name.endswith("-bin")]
    assert 2.5 < float(seen["remaining_s"]) < 3.5
    assert seen["peer"].startswith("127.0.0.1:")
    assert int(seen["peer"].rpartition(":")[2]) > 0
    assert seen["identity"] == ""


async def test_what_belongs_to_the_transport_is_not_metadata(stub: Stub) -> None:
    seen = (await stub.Say(LOOK, timeout=3, metadata=(("x-own", "1"),))).seen
    names = {name.removeprefix("metadata.") for name in seen if name.startswith("metadata.")}
    assert "x-own" in names
    assert not [name for name in names if name.startswith(":")]
    foreign = ("te", "grpc-timeout", "grpc-encoding", "content-type", "x-envoy", "x-forwarded")
    assert not [name for name in names if name.startswith(foreign)]


@pytest.mark.parametrize(
    "value", ["", 'a, b;c="d"', "=" * 1000, "%41%", "~!@#$%^&*()_+{}|:<>?`-=[]\\;',./"]
)
async def test_odd_values_arrive_as_they_are(stub: Stub, value: str) -> None:
    call = stub.Say(
        pb.SayRequest(behaviour="look", trailing={"x-back": value}), metadata=(("x-odd", value),)
    )
    assert (await call).seen["metadata.x-odd"] == value
    assert (await call.trailing_metadata())["x-back"] == value


async def test_a_repeated_name_does_no_harm(stub: Stub) -> None:
    metadata = (("x-twice", "a"), ("x-twice", "b"))
    seen = (await stub.Say(LOOK, metadata=metadata)).seen
    assert seen["metadata.x-twice"] in {"a", "b", "a,b", "a, b"}


async def test_trailing_metadata_stands_behind_every_kind_of_answer(stub: Stub) -> None:
    request = pb.SayRequest(text="a", trailing={"x-cost": "7", "x-unit": "byte"})
    say = stub.Say(request)
    await say
    request.behaviour = "look"
    count = stub.Count(request)
    assert len([answer async for answer in count]) == 1
    join = stub.Join(iter([request]))
    await join
    chat = stub.Chat(iter([request]))
    assert len([answer async for answer in chat]) == 1
    for call in (say, count, join, chat):
        trailing = await call.trailing_metadata()
        assert (trailing["x-cost"], trailing["x-unit"]) == ("7", "byte")


async def test_trailing_metadata_stands_behind_an_error_too(stub: Stub) -> None:
    failure = pb.Failure(error="OverloadedError", message="no")
    call = stub.Say(pb.SayRequest(behaviour="fail", failure=failure, trailing={"x-cost": "7"}))
    assert (await call.trailing_metadata())["x-cost"] == "7"


async def test_kilobytes_of_metadata_arrive(stub: Stub) -> None:
    metadata = tuple((f"x-many-{number}", "v" * 100) for number in range(40))
    seen = (await stub.Say(LOOK, metadata=metadata)).seen
    assert {f"metadata.{name}" for name, _ in metadata} <= set(seen)
