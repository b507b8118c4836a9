"""What the echo service does when it is a process of its own, and how it tells of it.

A request with a key has its steps logged: ``{"event":"step","key":...,"step":"entered"}``. A gate
is a file: a handler that holds at it goes on once it exists.
"""

from __future__ import annotations

import asyncio
import builtins
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from services.chain.errors import ERRORS as CHAIN_ERRORS
from services.process.logs import get_logger
from services.rpc.call import Call
from services.rpc.client import connect
from services.rpc.errors import (
    COMMON,
    DeadlineExceededError,
    OverloadedError,
    ServiceError,
    StoreUnavailableError,
)
from tests.support.echo_service import Behaviour, EchoServicer, Message, pb, pb_grpc

log = get_logger(__name__)

TRANSLATE: dict[type[Exception], type[ServiceError]] = {
    LookupError: StoreUnavailableError,
    KeyError: OverloadedError,
}


class TooManyError(OverloadedError):
    """Too many."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit}", metadata={"limit": str(limit)})


_ERRORS = {error.__name__: error for error in (*COMMON, *CHAIN_ERRORS)}


class RemoteEcho(EchoServicer):
    """Says what it hears, unless told otherwise; records what becomes of calls with a key."""

    def __init__(self, gates: Path, **behaviours: Behaviour) -> None:
        own = (
            self.wait, self.hold, self.look, self.fail, self.forward, self.settle, self.progress,
            self.own_timeout, self.cancelled_inside,
        )  # fmt: skip
        super().__init__(**{behaviour.__name__: behaviour for behaviour in own}, **behaviours)
        self._gates = gates
        self._progress: Counter[str] = Counter()

    async def wait(self, request: Message, _: Call) -> Message:
        """Until the call is cancelled."""
        log.info("waiting")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            _record(request.key, "cancelled")
            raise
        finally:
            await asyncio.sleep(0.01)  # cleaning up may take its time
            _record(request.key, "cleaned_up")

    async def hold(self, request: Message, _: Call) -> Message:
        """Until its gate opens."""
        gate = self._gates / request.key
        while not gate.exists():  # noqa: ASYNC110 (another process opens it)
            await asyncio.sleep(0.005)
        return pb.SayResponse(text="done")

    async def look(self, _: Message, call: Call) -> Message:
        """Tells what a handler sees."""
        assert Call.current() is call
        seen = {
            "method": call.method,
            "peer": call.peer,
            "identity": call.identity,
            "request_id": call.request_id,
            "trace_parent": call.trace_parent,
            "remaining_s": str(call.remaining_s()),
            "pid": str(os.getpid()),
        }
        metadata = {f"metadata.{name}": value for name, value in call.metadata.items()}
        return pb.SayResponse(seen=seen | metadata)

    async def fail(self, request: Message, _: Call) -> Message:
        """Raises what the request describes."""
        failure = request.failure
        if failure.error == "TooManyError":
            raise TooManyError(int(failure.message))
        if failure.error not in _ERRORS:
            raise getattr(builtins, failure.error)(failure.message)
        error = _ERRORS[failure.error](failure.message, metadata=failure.metadata)
        if failure.HasField("retry_after_s"):
            error.retry_after_s = failure.retry_after_s
        if failure.quota_subject:
            error.quota_subject = failure.quota_subject
        raise error

    async def forward(self, request: Message, call: Call) -> Message:
        """Passes ``next`` on, and tells what it saw itself as well."""
        own = (await self.look(request, call)).seen
        options = {"timeout": request.seconds} if request.seconds else {}
        async with connect(request.target) as channel:
            answer = await pb_grpc.EchoServiceStub(channel).Say(request.next, **options)
        answer.seen.update({f"first.{name}": value for name, value in own.items()})
        return answer

    async def settle(self, request: Message, call: Call) -> Message:
        """After its deadline calls another service all the same."""
        async with connect(request.target) as channel:
            stub = pb_grpc.EchoServiceStub(channel)
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep((call.remaining_s() or 0.0) + 0.01)
                try:
                    await stub.Say(pb.SayRequest(text="late"))
                except DeadlineExceededError:
                    _record(request.key, "refused")
                Call.outlive_deadline()
                _record(request.key, (await stub.Say(pb.SayRequest(text="settled"))).text)

    async def progress(self, request: Message, _: Call) -> Message:
        """How many messages the handler of another call with this key has sent or received."""
        return pb.SayResponse(text=str(self._progress[request.text]))

    async def own_timeout(self, _: Message, __: Call) -> Message:
        """Waits for something shorter than the call may take."""
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    async def cancelled_inside(self, _: Message, __: Call) -> Message:
        """Waits for something that is cancelled, though the call is not."""
        other = asyncio.get_running_loop().create_future()
        other.cancel()
        return await other

    async def Count(self, request: Message, context: object) -> AsyncIterator[Message]:  # noqa: N802 (the contract's name)
        if request.behaviour != "endless":
            async for answer in super().Count(request, context):
                yield answer
            return
        _record(request.key, "entered")
        try:
            while True:
                self._progress[request.key] += 1
                yield pb.SayResponse(payload=request.payload)
        finally:
            await asyncio.sleep(0.01)
            _record(request.key, "cleaned_up")

    async def Join(self, request_iterator: AsyncIterator[Message], context: object) -> Message:  # noqa: N802 (the contract's name)
        requests = _Recorded(request_iterator, self._progress)
        try:
            return await super().Join(requests, context)
        finally:
            _record(requests.key, "ended")

    async def Chat(  # noqa: N802 (the contract's name)
        self, request_iterator: AsyncIterator[Message], context: object
    ) -> AsyncIterator[Message]:
        requests = _Recorded(request_iterator, self._progress)
        try:
            async for answer in super().Chat(requests, context):
                yield answer
        finally:
            _record(requests.key, "ended")

    async def _answer(self, request: Message, call: Call) -> Message:
        _record(request.key, "entered", remaining_s=call.remaining_s())
        call.trailing_metadata.update(request.trailing)
        return await super()._answer(request, call)


class _Recorded:
    """A client's stream; its first request names the key."""

    def __init__(self, requests: AsyncIterator[Message], progress: Counter[str]) -> None:
        self._requests = requests
        self._progress = progress
        self.key = ""

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        try:
            request = await anext(self._requests)
        except StopAsyncIteration:
            _record(self.key, "complete")
            raise
        self.key = self.key or request.key
        self._progress[self.key] += 1
        return request


def _record(key: str, step: str, **fields: object) -> None:
    if key:
        log.info("step", key=key, step=step, **fields)
