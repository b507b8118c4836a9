"""What every call goes through, whichever face took it from the wire.

Bytes in, bytes out: admission, ids, parsing, validation, the handler, and one canonical log line. A
call ends with its answer, with a ServiceError (the face turns it into a status), or cancelled (the
face cancels the task that serves a call when its caller goes away or its deadline passes).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.message import DecodeError, Message

from services.process.logs import BatchedLines, get_logger
from services.rpc.call import Call
from services.rpc.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    OverloadedError,
    ServiceError,
    ShuttingDownError,
    StatusError,
    request_too_large,
)
from services.rpc.later import Later
from services.rpc.methods import Method
from services.rpc.trace import trace_id_of
from services.rpc.validation import checker

Translation = Mapping[type[Exception], type[ServiceError]]
"""What stands for exceptions that are not the contract's; the most derived class wins."""

Incoming = Any
"""A request's bytes or what went wrong with them, or an async iterator of requests' bytes.

Which of the two, the method says.
"""

Told = Callable[[bytes, BaseException | None], None]
"""Takes the answer to a call, or how it failed."""

_TRANSIT_S = 0.05

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes on at most."""

    max_concurrent_calls: int = 1000
    """Calls under way; further ones are refused before anything is done (OVERLOADED)."""
    max_message_bytes: int = 4 * 1024 * 1024
    """The largest request; larger ones are refused (INVALID_ARGUMENT)."""


class Pipeline:
    """Admits, runs and records the calls of one server."""

    def __init__(self, limits: Limits, translate: Translation) -> None:
        self._limits = limits
        self._translate = translate
        self._under_way = 0
        self._draining = False
        self._still_taken: Collection[str] = frozenset()
        self._idle = asyncio.Event()
        self._idle.set()
        self._lines = BatchedLines("call")

    def refuse_new_calls(self, but: Collection[str] = frozenset()) -> None:
        """From now on new calls are answered SHUTTING_DOWN, but those of these paths."""
        self._draining = True
        self._still_taken = but

    async def wait_until_idle(self, timeout_s: float) -> bool:
        """Waits until no call is under way; False when some still are after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def flush(self) -> None:
        """Writes the log lines that wait."""
        self._lines.flush()

    def unary_answer(self, method: Method) -> Callable[[Incoming, Call], Awaitable[bytes]]:
        """Wraps a method that gives one answer."""
        receive, handler, needs_task = self._receiver(method), method.handler, method.needs_task

        async def answer(incoming: Incoming, call: Call) -> bytes:
            started = time.perf_counter()
            try:
                self._admit(call)
                response = handler(receive(incoming, call), call)
                if needs_task or isinstance(response, Later):
                    response = await response
                encoded: bytes = response.SerializeToString()
            except BaseException as error:  # noqa: BLE001 (what becomes of it is decided below)
                raise self._failed(call, started, error) from None
            self._finished(call, started, "OK")
            return encoded

        return answer

    def taskless_answer(self, method: Method) -> Callable[[Incoming, Call, Told], UnderWay | None]:
        """Wraps a method that needs no task: the answer is told, now (None is given) or later.

        What runs later does so in a context in which the call is the current one. The caller sees
        to it that this is a context of its own: a callback is.
        """
        receive, handler = self._receiver(method), method.handler

        def begin(incoming: Incoming, call: Call, told: Told) -> UnderWay | None:
            started = time.perf_counter()
            try:
                self._admit(call)
                given: Message | Later[Message] = handler(receive(incoming, call), call)
                encoded = b"" if isinstance(given, Later) else given.SerializeToString()
            except BaseException as error:  # noqa: BLE001 (what becomes of it is decided there)
                told(b"", self._failed(call, started, error))
                return None
            if isinstance(given, Later):
                return UnderWay(self, call, started, given, told)
            self._finished(call, started, "OK")
            told(encoded, None)
            return None

        return begin

    def stream_answer(self, method: Method) -> Callable[[Incoming, Call], AsyncIterator[bytes]]:
        """Wraps a method that gives a stream of answers.

        The face closes the iterator (``aclose``) when it stops before the end.
        """
        receive, handler = self._receiver(method), method.handler

        async def answers(incoming: Incoming, call: Call) -> AsyncIterator[bytes]:
            started = time.perf_counter()
            try:
                self._admit(call)
                async with aclosing(handler(receive(incoming, call), call)) as responses:
                    async for response in responses:
                        yield response.SerializeToString()
            except BaseException as error:  # noqa: BLE001 (what becomes of it is decided below)
                raise self._failed(call, started, error) from None
            self._finished(call, started, "OK")

        return answers

    def _receiver(self, method: Method) -> Callable[[Incoming, Call], object]:
        """What turns what the face hands over into what the handler takes."""
        limit, request_class = self._limits.max_message_bytes, method.request_class
        check = checker(request_class)

        def parse(raw: bytes | Exception) -> Message:
            if not isinstance(raw, bytes):
                raise raw
            if len(raw) > limit:
                raise request_too_large(limit)
            try:
                request = request_class.FromString(raw)
            except DecodeError:
                raise InvalidArgumentError("the request is not a well-formed message") from None
            check(request)
            return request

        def receive(raw: Incoming, call: Call) -> Message:
            request: Any = parse(raw)
            if method.has_account:
                call.log_fields["account_id"] = request.account_id
            return request  # type: ignore[no-any-return]  # its class is known at run time only

        def receive_stream(raws: Incoming, _: Call) -> _Requests:
            return _Requests(raws, parse)

        return receive_stream if method.client_streaming else receive

    def _admit(self, call: Call) -> None:
        self._under_way += 1
        if self._under_way == 1:
            self._idle.clear()
        call.activate()
        if self._draining and call.method not in self._still_taken:
            raise ShuttingDownError
        if self._under_way > self._limits.max_concurrent_calls:
            raise OverloadedError
        if call.deadline is not None and call.deadline <= time.monotonic():
            raise DeadlineExceededError

    def _finished(self, call: Call, started: float, code: str) -> None:
        self._under_way -= 1
        if self._under_way == 0:
            self._idle.set()
        self._lines.add(
            {
                "method": call.method,
                "code": code,
                "duration_ms": round((time.perf_counter() - started) * 1e6) / 1000,
                "request_id": call.request_id,
                "trace_id": trace_id_of(call.trace_parent),
                "peer": call.peer,
                "identity": call.identity,
                **call.log_fields,
            }
        )

    def _failed(self, call: Call, started: float, error: BaseException) -> BaseException:
        """Records how a call failed; gives what the face is to see instead of ``error``."""
        if _is_the_end(error):
            self._cut_short(call, started)
            return error
        if isinstance(error, StatusError):
            call.note(error=str(error))
            self._finished(call, started, error.code.name)
            return error
        answer = self._answer(call, error)
        call.note(reason=answer.reason_name(), error=str(answer))
        self._finished(call, started, answer.code.name)
        return answer

    def _cut_short(self, call: Call, started: float) -> None:
        """Records that a call was ended before its answer was there."""
        # The caller's clock started earlier than ours and is the one that ends the call.
        remaining = call.remaining_s()
        late = remaining is not None and remaining < _TRANSIT_S
        self._finished(call, started, "DEADLINE_EXCEEDED" if late else "CANCELLED")

    def _answer(self, call: Call, error: BaseException) -> ServiceError:
        if isinstance(error, ServiceError) and (
            # An InternalError that has its incident was recorded where it happened.
            type(error) is not InternalError or "incident_id" in error.metadata
        ):
            return error
        for ancestor in type(error).__mro__:
            if ancestor in self._translate:
                log.warning("call_translated", error=f"{type(error).__name__}: {error}")
                return self._translate[ancestor]()
        if isinstance(error, TimeoutError) and call.remaining_s() == 0:
            return DeadlineExceededError()
        incident_id = os.urandom(8).hex()
        call.note(incident_id=incident_id)
        log.error("call_failed", method=call.method, incident_id=incident_id, exc_info=error)
        return InternalError(metadata={"incident_id": incident_id})


class UnderWay:
    """A call without a task, whose answer is to come."""

    __slots__ = ("_call", "_cancelled", "_later", "_pipeline", "_started", "_told")

    def __init__(
        self, pipeline: Pipeline, call: Call, started: float, later: Later[Message], told: Told
    ) -> None:
        self._pipeline = pipeline
        self._call = call
        self._started = started
        self._later = later
        self._told = told
        self._cancelled = False
        later.future.add_done_callback(self._done)

    def cancel(self) -> None:
        """Ends the call, unless the answer is there already."""
        self._cancelled = self._later.future.cancel()

    def _done(self, future: asyncio.Future[Any]) -> None:
        pipeline = self._pipeline
        try:
            encoded = self._later.answer(future.result()).SerializeToString()
        except BaseException as error:  # noqa: BLE001 (what becomes of it is decided there)
            if self._cancelled:
                pipeline._cut_short(self._call, self._started)  # noqa: SLF001 (a part of it)
            else:
                error = pipeline._failed(self._call, self._started, error)  # noqa: SLF001 (as above)
            self._told(b"", error)
        else:
            pipeline._finished(self._call, self._started, "OK")  # noqa: SLF001 (as above)
            self._told(encoded, None)


def unlogged_answer(method: Method) -> Callable[[Any, Call], Any]:
    """Runs a method of health or reflection: without limits, ids, rules or a log line."""

    async def answer(incoming: Any, call: Call) -> bytes:  # noqa: ANN401 (bytes, or what failed)
        response = await method.handler(_parsed(method, incoming), call)
        return cast("bytes", response.SerializeToString())

    return answer


def unlogged_stream(method: Method) -> Callable[[Any, Call], Any]:
    """As ``unlogged_answer``, for a stream of answers."""

    async def answers(incoming: Any, call: Call) -> AsyncIterator[bytes]:  # noqa: ANN401 (as above)
        requests = incoming if method.client_streaming else _parsed(method, incoming)
        if method.client_streaming:
            requests = (_parsed(method, raw) async for raw in incoming)
        async with aclosing(method.handler(requests, call)) as responses:
            async for response in responses:
                yield response.SerializeToString()

    return answers


def _parsed(method: Method, raw: Any) -> Any:  # noqa: ANN401 (bytes, or what failed; any message)
    if isinstance(raw, Exception):
        raise raw
    return method.request_class.FromString(raw)


def _is_the_end(error: BaseException) -> bool:
    """Whether a call ends because it is told to, not because something in it went wrong."""
    if isinstance(error, asyncio.CancelledError):
        # Otherwise something that the handler waited for was cancelled, and the caller still waits.
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return not isinstance(error, Exception)  # a generator that is closed, the process's exit


class _Requests:
    """The requests of a client's stream, each checked like a unary one."""

    def __init__(self, raws: AsyncIterator[bytes], parse: Callable[[bytes], Message]) -> None:
        self._raws = raws
        self._parse = parse

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        return self._parse(await anext(self._raws))
