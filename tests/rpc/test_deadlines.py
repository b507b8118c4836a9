"""Deadlines and cancellation: they cross every hop, and a handler always gets to clean up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.rpc.call import Call
from services.rpc.errors import DeadlineExceededError, InternalError
from services.rpc.methods import methods_of
from services.rpc.pipeline import Limits, Pipeline
from tests.rpc.conftest import ServeEcho, Stub
from tests.support.echo_service import EchoServicer, Message, pb

WAIT_S = 5.0


class Patience:
    """A handler that waits for ever, and records how it ended."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.ended = asyncio.Event()
        self.deadlines: list[float | None] = []
        self.cleaned_up = False

    async def __call__(self, _: Message, call: Call) -> Message:
        self.deadlines.append(call.remaining_s())
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # cleaning up may take its time
            self.cleaned_up = True
            self.ended.set()


WAIT = pb.SayRequest(behaviour="wait")


async def test_a_call_ends_at_its_deadline_on_both_sides(serve_echo: ServeEcho) -> None:
    patience = Patience()
    async with serve_echo(EchoServicer(wait=patience)) as (stub, _):
        with pytest.raises(DeadlineExceededError):
            await stub.Say(WAIT, timeout=0.1)
        await asyncio.wait_for(patience.ended.wait(), WAIT_S)
    assert patience.cleaned_up


async def test_a_stream_ends_at_its_deadline_on_both_sides(serve_echo: ServeEcho) -> None:
    patience = Patience()
    async with serve_echo(EchoServicer(wait=patience)) as (stub, _):
        with pytest.raises(DeadlineExceededError):
            [answer async for answer in stub.Count(WAIT, timeout=0.1)]
        await asyncio.wait_for(patience.ended.wait(), WAIT_S)
    assert patience.cleaned_up


async def test_a_deadline_crosses_two_hops(serve_echo: ServeEcho) -> None:
    patience = Patience()
    async with serve_echo(EchoServicer(wait=patience)) as (last, _):

        async def pass_on(_: Message, __: Call) -> Message:
            return await last.Say(WAIT)

        async with serve_echo(EchoServicer(wait=pass_on)) as (middle, _):

            async def pass_on_too(_: Message, __: Call) -> Message:
                return await middle.Say(WAIT)

            async with serve_echo(EchoServicer(wait=pass_on_too)) as (first, _):
                with pytest.raises(DeadlineExceededError):
                    await first.Say(WAIT, timeout=0.5)
                await asyncio.wait_for(patience.ended.wait(), WAIT_S)
    (left,) = patience.deadlines
    assert left is not None
    assert 0 < left < 1  # not the channels' five seconds; grpc rounds up


async def test_a_stricter_deadline_of_a_hop_holds_for_that_hop(serve_echo: ServeEcho) -> None:
    patience = Patience()
    async with serve_echo(EchoServicer(wait=patience)) as (last, _):

        async def pass_on(_: Message, __: Call) -> Message:
            with pytest.raises(DeadlineExceededError):
                await last.Say(WAIT, timeout=0.1)
            return pb.SayResponse(text="in time")

        async with serve_echo(EchoServicer(wait=pass_on)) as (first, _):
            assert (await first.Say(WAIT, timeout=WAIT_S)).text == "in time"
    (left,) = patience.deadlines
    assert left is not None
    assert left < 1  # neither the caller's five seconds; grpc rounds up


async def test_without_a_deadline_of_the_caller_the_channels_default_holds(
    serve_echo: ServeEcho,
) -> None:
    left: list[float | None] = []

    async def look(_: Message, call: Call) -> Message:
        left.append(call.remaining_s())
        return pb.SayResponse()

    async with serve_echo(EchoServicer(look=look)) as (stub, _):
        await stub.Say(pb.SayRequest(behaviour="look"))
        assert len([answer async for answer in stub.Count(pb.SayRequest(behaviour="look"))]) == 1
    unary, stream = left
    assert unary is not None
    assert 4 < unary < 5.5  # grpc rounds up
    assert stream is None


async def test_a_call_without_time_left_is_not_even_sent(
    serve_echo: ServeEcho,
) -> None:
    patience = Patience()

    async def late(_: Message, call: Call) -> Message:
        call.deadline = time.monotonic() - 1
        return await stub.Say(WAIT)

    async with serve_echo(EchoServicer(wait=patience, late=late)) as (stub, _):
        with pytest.raises(DeadlineExceededError):
            await stub.Say(pb.SayRequest(behaviour="late"))
    assert not patience.entered.is_set()


async def test_a_call_that_arrives_too_late_is_refused_before_its_handler() -> None:
    patience = Patience()
    (say, *_) = methods_of(EchoServicer(wait=patience))
    call = Call(say.path, deadline=time.monotonic() - 0.001)
    with pytest.raises(DeadlineExceededError):
        await Pipeline(Limits(), {}).unary_answer(say)(WAIT.SerializeToString(), call)
    assert not patience.entered.is_set()


async def test_a_timeout_of_the_handlers_own_is_a_fault(serve_echo: ServeEcho) -> None:
    async def give_up(_: Message, __: Call) -> Message:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    async with serve_echo(EchoServicer(give_up=give_up)) as (stub, _):
        with pytest.raises(InternalError):
            await stub.Say(pb.SayRequest(behaviour="give_up"))


async def test_a_caller_that_goes_away_cancels_the_handler(serve_echo: ServeEcho) -> None:
    patience = Patience()
    async with serve_echo(EchoServicer(wait=patience)) as (stub, _):
        call = asyncio.ensure_future(stub.Say(WAIT))
        await asyncio.wait_for(patience.entered.wait(), WAIT_S)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(patience.ended.wait(), WAIT_S)
    assert patience.cleaned_up


class Endless(EchoServicer):
    """Sends until its reader goes, counts what it sends, and records how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0
        self.may_clean_up = asyncio.Event()
        self.may_clean_up.set()
        self.cleaned_up = False
        self.ended = asyncio.Event()

    async def Count(self, request: Message, context: object) -> Message:  # noqa: N802 (the contract's name)
        del request, context
        try:
            while True:
                self.sent += 1  # before: what was sent may have been read before we hear of it
                yield pb.SayResponse(payload=bytes(64 * 1024))
        finally:
            try:
                await self.may_clean_up.wait()
                await asyncio.sleep(0)
                self.cleaned_up = True
            finally:
                self.ended.set()


async def _read_three_and_leave(stub: Stub) -> None:
    answers = stub.Count(pb.SayRequest())
    for _ in range(3):
        await anext(answers)
    answers.cancel()


async def test_a_reader_that_goes_away_ends_the_stream_where_it_stands(
    serve_echo: ServeEcho,
) -> None:
    servicer = Endless()
    async with serve_echo(servicer) as (stub, _):
        await _read_three_and_leave(stub)
        await asyncio.wait_for(servicer.ended.wait(), WAIT_S)
    assert servicer.sent >= 3
    assert servicer.cleaned_up


async def test_a_cancellation_after_a_failed_write_leaves_the_handler_its_cleaning_up(
    serve_echo: ServeEcho,
) -> None:
    """The rare order of the two things that grpc.aio hears of a reader who leaves, every time."""
    servicer = Endless()
    servicer.may_clean_up.clear()

    class LateTask(asyncio.Task[object]):
        """Is cancelled a moment later than told, if it serves a call: by then its write failed."""

        def cancel(self, msg: object = None) -> bool:
            if not self.get_name().startswith("HandleExceptions"):  # grpc.aio's name for those
                return super().cancel(msg)
            self.get_loop().call_later(0.05, self._cancel_now)
            return True

        def _cancel_now(self) -> None:
            super().cancel()
            servicer.may_clean_up.set()

    def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any) -> Any:  # noqa: ANN401 (of any type)
        return LateTask(coroutine, loop=loop)

    asyncio.get_running_loop().set_task_factory(make_task)
    async with serve_echo(servicer) as (stub, _):
        await _read_three_and_leave(stub)
        await asyncio.wait_for(servicer.ended.wait(), WAIT_S)
    assert servicer.may_clean_up.is_set()
    assert servicer.cleaned_up


async def test_an_uploader_that_goes_away_ends_the_handler(serve_echo: ServeEcho) -> None:
    patience = Patience()
    async with serve_echo(EchoServicer(wait=patience)) as (stub, _):
        call = stub.Join()
        await call.write(WAIT)
        await asyncio.wait_for(patience.entered.wait(), WAIT_S)
        call.cancel()
        await asyncio.wait_for(patience.ended.wait(), WAIT_S)
    assert patience.cleaned_up


async def test_an_upload_that_was_broken_off_never_looks_complete(serve_echo: ServeEcho) -> None:
    class Collector(EchoServicer):
        """Counts the uploads that came to their end, and those that did not."""

        def __init__(self) -> None:
            super().__init__()
            self.complete = 0
            self.arrived = asyncio.Event()
            self.ended = asyncio.Event()

        async def Join(self, request_iterator: AsyncIterator[Message], context: object) -> Message:  # noqa: N802 (the contract's name)
            del context
            try:
                async for _ in request_iterator:
                    self.arrived.set()
                self.complete += 1
            finally:
                self.ended.set()
            return pb.SayResponse()

    servicer = Collector()
    async with serve_echo(servicer) as (stub, _):
        for _ in range(40):
            servicer.arrived.clear()
            servicer.ended.clear()
            call = stub.Join()
            await call.write(WAIT)
            await asyncio.wait_for(servicer.arrived.wait(), WAIT_S)
            call.cancel()
            await asyncio.wait_for(servicer.ended.wait(), WAIT_S)
        assert servicer.complete == 0
        call = stub.Join()
        await call.write(WAIT)
        await call.done_writing()
        await call
    assert servicer.complete == 1


async def test_cancellation_crosses_a_hop(serve_echo: ServeEcho) -> None:
    patience = Patience()
    async with serve_echo(EchoServicer(wait=patience)) as (last, _):

        async def pass_on(_: Message, __: Call) -> Message:
            return await last.Say(WAIT)

        async with serve_echo(EchoServicer(wait=pass_on)) as (first, _):
            call = asyncio.ensure_future(first.Say(WAIT))
            await asyncio.wait_for(patience.entered.wait(), WAIT_S)
            call.cancel()
            await asyncio.wait_for(patience.ended.wait(), WAIT_S)
    assert patience.cleaned_up


async def test_what_must_be_settled_outlives_the_deadline(serve_echo: ServeEcho) -> None:
    settled = asyncio.Event()

    async with serve_echo() as (ledger, _):

        async def serve(_: Message, call: Call) -> Message:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep((call.remaining_s() or 0.0) + 0.01)
                assert call.remaining_s() == 0
                with pytest.raises(DeadlineExceededError):
                    await ledger.Say(pb.SayRequest(text="settle"))
                Call.outlive_deadline()
                assert (await ledger.Say(pb.SayRequest(text="settle"))).text == "settle"
                settled.set()

        async with serve_echo(EchoServicer(wait=serve)) as (stub, _):
            with pytest.raises(DeadlineExceededError):
                await stub.Say(WAIT, timeout=0.1)
            await asyncio.wait_for(settled.wait(), WAIT_S)
