"""Errors across the wire: the same class on both sides, and nothing that is nobody's business."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import (  # type: ignore[import-untyped]  # has none
    error_details_pb2,
    status_pb2,
)

from services.chain.errors import ERRORS as CHAIN_ERRORS
from services.chain.errors import ObjectCorruptError, ObjectNotFoundError
from services.rpc.call import Call
from services.rpc.errors import (
    COMMON,
    InternalError,
    InvalidArgumentError,
    OverloadedError,
    ServiceError,
    StoreUnavailableError,
)
from tests.rpc.conftest import ServeEcho, Stub
from tests.support.echo_behaviours import TooManyError
from tests.support.echo_server import EchoServer
from tests.support.echo_service import EchoServicer, Message, pb, pb_grpc
from tests.support.http2_peer import Http2Peer

KINDS = ("Say", "Ask", "Count", "Join", "Chat")
SECRET = "tm_local_k1_hunter2"


def _failing(error: str, message: str = "", **fields: Any) -> Message:  # noqa: ANN401 (of Failure)
    failure = pb.Failure(error=error, message=message, **fields)
    return pb.SayRequest(behaviour="fail", failure=failure)


@pytest.fixture
async def stub(echo: EchoServer) -> AsyncIterator[Stub]:
    """Knows the errors of a service besides those of any."""
    async with echo.stub(errors=[*CHAIN_ERRORS, TooManyError]) as stub:
        yield stub


@pytest.mark.parametrize(
    "error_class", [*COMMON, *CHAIN_ERRORS], ids=lambda error_class: str(error_class.__name__)
)
async def test_a_client_gets_the_class_that_the_server_raised(
    echo: EchoServer, error_class: type[ServiceError]
) -> None:
    request = _failing(
        error_class.__name__,
        "in words: ü",
        metadata={"limit": "5", "incident_id": "i1"},
        retry_after_s=1.5,
        quota_subject="account:a1",
    )
    async with echo.stub(errors=CHAIN_ERRORS) as stub:
        with pytest.raises(error_class) as caught:
            await stub.Say(request)
    received = caught.value
    assert type(received) is error_class
    assert str(received) == "in words: ü"
    assert received.metadata == {"limit": "5", "incident_id": "i1"}
    assert received.retry_after_s == 1.5
    assert received.quota_subject == "account:a1"


async def test_a_class_with_a_constructor_of_its_own_arrives_too(echo: EchoServer) -> None:
    async with echo.stub(errors=[TooManyError]) as stub:
        with pytest.raises(TooManyError, match="more than 3") as caught:
            await stub.Say(_failing("TooManyError", "3"))
    assert caught.value.metadata == {"limit": "3"}
    assert caught.value.quota_subject is None


@pytest.mark.parametrize(
    "message", ["ä€𝄞", "two\nlines\r\n", "100% of %41", "tab\t", "\x00\x1f\x7f", " spaced "]
)
async def test_a_message_in_any_words_arrives_as_it_is(stub: Stub, message: str) -> None:
    with pytest.raises(ObjectNotFoundError) as caught:
        await stub.Say(_failing("ObjectNotFoundError", message, metadata={"said": message}))
    assert str(caught.value) == message
    assert caught.value.metadata == {"said": message}
    cause = caught.value.__cause__
    assert isinstance(cause, grpc.aio.AioRpcError)
    assert cause.details() == message


async def test_an_error_in_the_middle_of_a_stream_follows_what_was_sent(stub: Stub) -> None:
    request = _failing("ObjectCorruptError")
    request.text, request.times = "a", 2
    answers = stub.Count(request)
    assert (await anext(answers)).text == "a"
    assert (await anext(answers)).text == "a"
    with pytest.raises(ObjectCorruptError):
        await anext(answers)


async def test_an_error_ends_a_clients_stream(stub: Stub) -> None:
    async def requests() -> AsyncIterator[Message]:
        yield pb.SayRequest(text="a")
        yield _failing("ObjectNotFoundError", retry_after_s=2.5)
        await asyncio.Event().wait()  # the server answers before the stream ends

    with pytest.raises(ObjectNotFoundError) as caught:
        await stub.Join(requests())
    assert caught.value.retry_after_s == 2.5
    with pytest.raises(ObjectNotFoundError):
        [answer async for answer in stub.Chat(requests())]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_before_the_first_answer_is_trailers_only(
    echo: EchoServer, kind: str
) -> None:
    """So clients may retry by themselves."""
    async with Http2Peer.connected(echo.address) as peer:
        stream = await peer.call(f"/tests.echo.v1.EchoService/{kind}", _failing("OverloadedError"))
        answer = await peer.answer(stream)
    assert answer.http_status == 200
    assert answer.headers["content-type"].startswith("application/grpc")
    assert answer.code is grpc.StatusCode.UNAVAILABLE
    assert answer.trailers_only
    assert (answer.body, answer.trailers) == (b"", {})
    raw = base64.b64decode(answer.headers["grpc-status-details-bin"] + "==")
    details = status_pb2.Status.FromString(raw)
    kinds = [detail.type_url.rpartition("/")[2] for detail in details.details]
    assert kinds == ["google.rpc.ErrorInfo", "google.rpc.RetryInfo"]
    assert details.code == grpc.StatusCode.UNAVAILABLE.value[0]


async def test_a_client_that_retries_by_grpcs_own_policy_tries_again(
    echo: EchoServer, key: str
) -> None:
    policy = (
        '{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3,'
        '"initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 1,'
        '"retryableStatusCodes": ["UNAVAILABLE"]}}]}'
    )
    options = [("grpc.service_config", policy)]
    request = _failing("OverloadedError", retry_after_s=0.01)
    request.key = key
    async with grpc.aio.insecure_channel(echo.address, options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await pb_grpc.EchoServiceStub(channel).Say(request)
    assert echo.told(key) == ["entered"] * 3


async def test_every_broken_rule_is_named(stub: Stub) -> None:
    request = pb.SayRequest(text="too long a text", items=[pb.Item(), pb.Item(size=-1)])
    request.named["x"].size = -1
    with pytest.raises(InvalidArgumentError) as caught:
        await stub.Say(request)
    assert set(caught.value.violations) == {"text", "items[1].size", "named['x'].size"}
    assert "at most 8 characters" in caught.value.violations["text"]
    assert "text: " in str(caught.value)


async def test_every_request_of_a_stream_is_checked(stub: Stub) -> None:
    async def requests() -> AsyncIterator[Message]:
        yield pb.SayRequest(text="short")
        yield pb.SayRequest(text="too long a text")

    with pytest.raises(InvalidArgumentError) as caught:
        await stub.Join(requests())
    assert set(caught.value.violations) == {"text"}
    with pytest.raises(InvalidArgumentError):
        [answer async for answer in stub.Chat(requests())]
    with pytest.raises(InvalidArgumentError):
        [answer async for answer in stub.Count(pb.SayRequest(text="too long a text"))]


async def test_a_request_that_breaks_many_rules_is_refused_all_the_same(stub: Stub) -> None:
    request = pb.SayRequest(items=[pb.Item(size=-1)] * 1000)
    request.named["k" * 5000].size = -1
    with pytest.raises(InvalidArgumentError) as caught:
        await stub.Say(request)
    assert "items[0].size" in caught.value.violations


async def test_an_error_too_large_for_a_trailer_still_says_what_it_is(stub: Stub) -> None:
    huge = _failing("ObjectNotFoundError", "word " * 10_000, metadata={"list": "x" * 100_000})
    with pytest.raises(ObjectNotFoundError, match="word word") as caught:
        await stub.Say(huge)
    assert caught.value.metadata == {}


async def test_a_message_that_utf8_cannot_carry_is_mended(serve_echo: ServeEcho) -> None:
    async def fail(_: Message, __: Call) -> Message:
        raise ObjectNotFoundError("name \udc80\n", metadata={"name": "\udc80"})

    async with serve_echo(EchoServicer(fail=fail), errors=CHAIN_ERRORS) as (stub, _):
        with pytest.raises(ObjectNotFoundError, match=r"name \?"):
            await stub.Say(pb.SayRequest(behaviour="fail"))


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unknown_exception_tells_nothing_but_an_incident(
    echo: EchoServer, plain_stub: Stub, kind: str
) -> None:
    request = _failing("ValueError", SECRET)
    call = getattr(plain_stub, kind)(
        request if kind in {"Say", "Ask", "Count"} else iter([request])
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call if kind in {"Say", "Ask", "Join"} else await call.read()
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    told = f"{caught.value} {caught.value.trailing_metadata()} {caught.value.initial_metadata()}"
    for inside in (SECRET, "ValueError", "Traceback", ".py", "asyncio"):
        assert inside not in told
    status = status_pb2.Status.FromString(
        dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    )
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "INTERNAL"
    line = await echo.until_logged("call_failed", incident_id=info.metadata["incident_id"])
    assert SECRET in line["exception"]


async def test_exceptions_of_a_library_are_translated_by_their_most_derived_class(
    stub: Stub,
) -> None:
    for raised, expected in (("KeyError", OverloadedError), ("IndexError", StoreUnavailableError)):
        with pytest.raises(expected) as caught:
            await stub.Say(_failing(raised, SECRET))
        assert SECRET not in str(caught.value)


async def test_something_cancelled_inside_is_a_fault_and_not_the_callers_cancellation(
    stub: Stub,
) -> None:
    request = pb.SayRequest(behaviour="cancelled_inside")
    with pytest.raises(InternalError):
        await stub.Say(request, timeout=5)
    with pytest.raises(InternalError):
        [answer async for answer in stub.Count(request, timeout=5)]


def _forwarded(echo: EchoServer, request: Message) -> Message:
    return pb.SayRequest(behaviour="forward", target=echo.address, next=request)


async def test_an_incident_of_a_service_behind_keeps_its_id(echo: EchoServer, stub: Stub) -> None:
    before = len(echo.lines("call_failed"))
    with pytest.raises(InternalError) as caught:
        await stub.Say(_forwarded(echo, _failing("ValueError", SECRET)))
    incidents = [line["incident_id"] for line in echo.lines("call_failed")[before:]]
    assert incidents == [caught.value.metadata["incident_id"]]


async def test_an_error_that_a_client_does_not_know_is_an_incident_for_its_caller(
    echo: EchoServer, stub: Stub
) -> None:
    with pytest.raises(InternalError) as caught:
        await stub.Say(_forwarded(echo, _failing("ObjectNotFoundError", SECRET)))
    assert "incident_id" in caught.value.metadata
    assert SECRET not in str(caught.value)
