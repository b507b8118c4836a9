"""Errors across the wire: the same class on both sides, and nothing that is nobody's business."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from services.chain.errors import ERRORS as CHAIN_ERRORS
from services.chain.errors import ObjectCorruptError, ObjectNotFoundError
from services.rpc.call import Call
from services.rpc.client import connect
from services.rpc.errors import (
    COMMON,
    DependencyUnavailableError,
    InternalError,
    InvalidArgumentError,
    OverloadedError,
    ServiceError,
    StoreUnavailableError,
)
from tests.rpc.conftest import ServeEcho
from tests.support.echo_service import EchoServicer, Message, pb, pb_grpc

SECRET = "tm_local_k1_hunter2"


def _raising(error: BaseException) -> EchoServicer:
    async def fail(_: Message, __: Call) -> Message:
        raise error

    return EchoServicer(fail=fail)


FAIL = pb.SayRequest(behaviour="fail")


@pytest.mark.parametrize(
    "error_class", [*COMMON, *CHAIN_ERRORS], ids=lambda error_class: str(error_class.__name__)
)
async def test_a_client_gets_the_class_that_the_server_raised(
    serve_echo: ServeEcho, error_class: type[ServiceError]
) -> None:
    raised = error_class(
        "in words: ü", metadata={"limit": "5", "incident_id": "i1"}, retry_after_s=1.5
    )
    raised.quota_subject = "account:a1"
    async with serve_echo(_raising(raised), errors=CHAIN_ERRORS) as (stub, _):
        with pytest.raises(error_class) as caught:
            await stub.Say(FAIL)
    received = caught.value
    assert type(received) is error_class
    assert str(received) == "in words: ü"
    assert received.metadata == {"limit": "5", "incident_id": "i1"}
    assert received.retry_after_s == 1.5
    assert received.quota_subject == "account:a1"


async def test_a_class_with_a_constructor_of_its_own_arrives_too(serve_echo: ServeEcho) -> None:
    class TooManyError(OverloadedError):
        """Too many."""

        def __init__(self, limit: int) -> None:
            super().__init__(f"more than {limit}", metadata={"limit": str(limit)})

    async with serve_echo(_raising(TooManyError(3)), errors=[TooManyError]) as (stub, _):
        with pytest.raises(TooManyError, match="more than 3") as caught:
            await stub.Say(FAIL)
    assert caught.value.metadata == {"limit": "3"}
    assert caught.value.quota_subject is None


async def test_an_error_in_the_middle_of_a_stream_follows_what_was_sent(
    serve_echo: ServeEcho,
) -> None:
    async with serve_echo(_raising(ObjectCorruptError()), errors=CHAIN_ERRORS) as (stub, _):
        answers = stub.Count(pb.SayRequest(text="a", times=2, behaviour="fail"))
        assert (await anext(answers)).text == "a"
        assert (await anext(answers)).text == "a"
        with pytest.raises(ObjectCorruptError):
            await anext(answers)


async def test_an_error_ends_a_clients_stream(serve_echo: ServeEcho) -> None:
    async def requests() -> AsyncIterator[Message]:
        yield pb.SayRequest(text="a")
        yield FAIL
        await asyncio.Event().wait()  # the server answers before the stream ends

    async with serve_echo(_raising(ObjectNotFoundError()), errors=CHAIN_ERRORS) as (stub, _):
        with pytest.raises(ObjectNotFoundError) as caught:
            await stub.Join(requests())
        assert caught.value.retry_after_s == ObjectNotFoundError.retry_after_s
        with pytest.raises(ObjectNotFoundError):
            [answer async for answer in stub.Chat(requests())]


async def test_every_broken_rule_is_named(serve_echo: ServeEcho) -> None:
    request = pb.SayRequest(text="too long a text", items=[pb.Item(), pb.Item(size=-1)])
    request.named["x"].size = -1
    async with serve_echo() as (stub, _):
        with pytest.raises(InvalidArgumentError) as caught:
            await stub.Say(request)
    assert set(caught.value.violations) == {"text", "items[1].size", "named['x'].size"}
    assert "at most 8 characters" in caught.value.violations["text"]
    assert "text: " in str(caught.value)


async def test_every_request_of_a_stream_is_checked(serve_echo: ServeEcho) -> None:
    async def requests() -> AsyncIterator[Message]:
        yield pb.SayRequest(text="short")
        yield pb.SayRequest(text="too long a text")

    async with serve_echo() as (stub, _):
        with pytest.raises(InvalidArgumentError) as caught:
            await stub.Join(requests())
        assert set(caught.value.violations) == {"text"}
        with pytest.raises(InvalidArgumentError):
            [answer async for answer in stub.Chat(requests())]
        with pytest.raises(InvalidArgumentError):
            [answer async for answer in stub.Count(pb.SayRequest(text="too long a text"))]


async def test_a_request_that_breaks_many_rules_is_refused_all_the_same(
    serve_echo: ServeEcho,
) -> None:
    request = pb.SayRequest(items=[pb.Item(size=-1)] * 1000)
    request.named["k" * 5000].size = -1
    async with serve_echo() as (stub, _):
        with pytest.raises(InvalidArgumentError) as caught:
            await stub.Say(request)
    assert "items[0].size" in caught.value.violations


async def test_an_error_too_large_for_a_trailer_still_says_what_it_is(
    serve_echo: ServeEcho,
) -> None:
    huge = ObjectNotFoundError("word " * 10_000, metadata={"list": "x" * 100_000})
    async with serve_echo(_raising(huge), errors=CHAIN_ERRORS) as (stub, _):
        with pytest.raises(ObjectNotFoundError, match="word word") as caught:
            await stub.Say(FAIL)
    assert caught.value.metadata == {}


async def test_a_message_that_utf8_cannot_carry_is_mended(serve_echo: ServeEcho) -> None:
    strange = ObjectNotFoundError("name \udc80\n", metadata={"name": "\udc80"})
    async with serve_echo(_raising(strange), errors=CHAIN_ERRORS) as (stub, _):
        with pytest.raises(ObjectNotFoundError, match=r"name \?"):
            await stub.Say(FAIL)


@pytest.mark.parametrize("kind", ["Say", "Count", "Join", "Chat"])
async def test_an_unknown_exception_tells_nothing_but_an_incident(
    serve_echo: ServeEcho, kind: str
) -> None:
    async with (
        serve_echo(_raising(ValueError(SECRET))) as (_, server),
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        method = getattr(pb_grpc.EchoServiceStub(channel), kind)
        call = method(FAIL if kind in {"Say", "Count"} else iter([FAIL]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call if kind in {"Say", "Join"} else await call.read()
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert SECRET not in str(caught.value)
    assert SECRET not in str(caught.value.trailing_metadata())
    assert "ValueError" not in str(caught.value)


async def test_an_incident_has_an_id(serve_echo: ServeEcho) -> None:
    async with serve_echo(_raising(ValueError(SECRET))) as (stub, _):
        with pytest.raises(InternalError) as caught:
            await stub.Say(FAIL)
    assert len(caught.value.metadata["incident_id"]) == 16


async def test_exceptions_of_a_library_are_translated_by_their_most_derived_class(
    serve_echo: ServeEcho,
) -> None:
    translate = {OSError: StoreUnavailableError, ConnectionError: OverloadedError}
    for raised, expected in (
        (ConnectionResetError(SECRET), OverloadedError),
        (PermissionError(SECRET), StoreUnavailableError),
    ):
        async with serve_echo(_raising(raised), translate=translate) as (stub, _):
            with pytest.raises(expected) as caught:
                await stub.Say(FAIL)
            assert SECRET not in str(caught.value)


async def test_something_cancelled_inside_is_a_fault_and_not_the_callers_cancellation(
    serve_echo: ServeEcho,
) -> None:
    async def wait_for_what_is_cancelled(_: Message, __: Call) -> Message:
        other = asyncio.get_running_loop().create_future()
        other.cancel()
        return await other

    servicer = EchoServicer(wait=wait_for_what_is_cancelled)
    async with serve_echo(servicer) as (stub, _):
        with pytest.raises(InternalError):
            await stub.Say(pb.SayRequest(behaviour="wait"), timeout=5)
        with pytest.raises(InternalError):
            [answer async for answer in stub.Count(pb.SayRequest(behaviour="wait"), timeout=5)]


async def test_an_incident_of_a_service_behind_keeps_its_id(serve_echo: ServeEcho) -> None:
    async with serve_echo(_raising(ValueError(SECRET))) as (behind, _):

        async def pass_on(_: Message, __: Call) -> Message:
            try:
                return await behind.Say(FAIL)
            except InternalError as error:
                first.append(error.metadata["incident_id"])
                raise

        first: list[str] = []
        async with serve_echo(EchoServicer(pass_on=pass_on)) as (stub, _):
            with pytest.raises(InternalError) as caught:
                await stub.Say(pb.SayRequest(behaviour="pass_on"))
    assert caught.value.metadata["incident_id"] == first[0]


async def test_an_error_that_a_client_does_not_know_is_an_incident_for_its_caller(
    serve_echo: ServeEcho,
) -> None:
    async with serve_echo(_raising(ObjectNotFoundError(SECRET))) as (behind, _):

        async def pass_on(_: Message, __: Call) -> Message:
            return await behind.Say(FAIL)

        async with serve_echo(EchoServicer(pass_on=pass_on)) as (stub, _):
            with pytest.raises(InternalError) as caught:
                await stub.Say(pb.SayRequest(behaviour="pass_on"))
    assert "incident_id" in caught.value.metadata
    assert SECRET not in str(caught.value)


async def test_a_server_that_dies_in_a_call_is_an_unavailable_dependency(
    serve_echo: ServeEcho,
) -> None:
    entered = asyncio.Event()

    async def wait(_: Message, __: Call) -> Message:
        entered.set()
        await asyncio.Event().wait()

    async with (
        serve_echo(EchoServicer(wait=wait), drain_s=0) as (_, server),
        connect(server.address) as channel,
    ):
        stub = pb_grpc.EchoServiceStub(channel)
        call = asyncio.ensure_future(stub.Say(pb.SayRequest(behaviour="wait")))
        await entered.wait()
        await server.drain()
        with pytest.raises(DependencyUnavailableError):
            await call
