"""What only grpc.aio makes necessary, seen from inside the server's process."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.rpc.conftest import ServeEcho, Stub
from tests.support.deadline import DEADLINE_S
from tests.support.echo_service import EchoServicer, Message, pb


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
        await asyncio.wait_for(servicer.ended.wait(), DEADLINE_S)
    assert servicer.may_clean_up.is_set()
    assert servicer.cleaned_up
