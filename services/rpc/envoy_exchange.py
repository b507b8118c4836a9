"""One call inside Envoy: requests as ASGI events in, answers as ASGI events out.

No task waits for a request to arrive: an exchange lives by callbacks until there is something for
the handler to do. That halves what a small call costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import grpc

from services.process.inside import Event, Receive, Send
from services.process.logs import get_logger
from services.rpc.call import Call
from services.rpc.errors import DeadlineExceededError, ServiceError, StatusError
from services.rpc.framing import (
    ACCEPTED_ENCODINGS,
    Headers,
    compressed_frame,
    frame,
    metadata_headers,
    status_headers,
)
from services.rpc.metadata import Received
from services.rpc.methods import Method
from services.rpc.pipeline import Pipeline, Told, UnderWay, unlogged_answer, unlogged_stream

_COMPRESSED_FROM_BYTES = 16 * 1024
"""Single answers from this size are compressed for callers that take it; streams never are."""
_FIRST_LOOK_S = 0.05
_LAST_LOOK_S = 1.0

_CONTENT = (b"content-type", b"application/grpc")
_ACCEPTS = (b"grpc-accept-encoding", ACCEPTED_ENCODINGS)
_OK = (b"grpc-status", b"0")
_START: Event = {
    "type": "http.response.start",
    "status": 200,
    "headers": [_CONTENT, _ACCEPTS],
    "trailers": True,
}
_COMPRESSED_START = {**_START, "headers": [_CONTENT, _ACCEPTS, (b"grpc-encoding", b"gzip")]}
_NO_BODY: Event = {"type": "http.request", "body": b"", "more_body": False}
_LAST_BODY: Event = {"type": "http.response.body", "body": b""}
_TRAILERS: Event = {"type": "http.response.trailers", "headers": [_OK]}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """A method, and how its calls are run."""

    path: str
    answer: Callable[[Any, Call], Any]
    """A coroutine function, or with ``many`` an async generator function; bytes in, bytes out."""
    many: bool
    """Whether it gives a stream of answers."""
    limit: int
    """The largest request, in bytes."""
    ended: Callable[[Exchange], None]
    begin: Callable[[Any, Call, Told], UnderWay | None] | None = None
    """Instead of ``answer``, for a method that needs no task."""

    @staticmethod
    def of(
        method: Method, pipeline: Pipeline | None, limit: int, ended: Callable[[Exchange], None]
    ) -> Route:
        """Through the pipeline, or without one: not counted, not logged."""
        answer: Callable[[Any, Call], Any]
        begin = None
        if pipeline is None:
            answer = unlogged_stream(method) if method.server_streaming else unlogged_answer(method)
        elif method.server_streaming:
            answer = pipeline.stream_answer(method)
        else:
            answer = pipeline.unary_answer(method)
            begin = None if method.needs_task else pipeline.taskless_answer(method)
        return Route(method.path, answer, method.server_streaming, limit, ended, begin)


def answer_with(send: Send, status: int, headers: Headers) -> None:
    """A whole response without a body: HEADERS with END_STREAM."""
    send({"type": "http.response.start", "status": status, "headers": headers})
    send(_LAST_BODY)


class Exchange:
    """A request and its response; made when the headers are there."""

    __slots__ = (
        "_answering",
        "_call",
        "_late",
        "_leaving",
        "_look_at",
        "_look_s",
        "_over",
        "_received",
        "_route",
        "_send",
        "_started",
        "_timer",
        "_work",
        "receive",
    )

    def __init__(
        self, route: Route, call: Call, metadata: Received, receive: Receive, send: Send
    ) -> None:
        self._route = route
        self._call = call
        self._received = metadata
        self.receive = receive
        self._send = send
        self._work: asyncio.Task[None] | UnderWay | None = None
        self._timer = False
        self._late = False
        self._leaving = False
        self._over = False
        self._started = False
        self._look_at = 0.0
        self._look_s = _FIRST_LOOK_S

    def add_done_callback(self, callback: object) -> None:
        """Never calls back: the one who asks, pyvoy, only waits for what went wrong."""

    def look(self, now: float, soon_s: float) -> None:
        """Sees to the deadline when it is near, and now and then whether the caller is there."""
        deadline = self._call.deadline
        if deadline is not None and not self._timer and deadline - now < 2 * soon_s:
            self.expire_in(deadline - now)
        if self._look_at == 0:
            self._look_at = now + self._look_s
        elif now >= self._look_at and self._work is not None and self._all_is_read():
            self._look_s = min(2 * self._look_s, _LAST_LOOK_S)
            self._look_at = now + self._look_s
            self.receive().add_done_callback(self._looked)

    def ask(self, arrived: Callable[[asyncio.Future[Event]], None]) -> None:
        """Asks for the next event of the request."""
        future = self.receive()
        try:
            future.add_done_callback(arrived)
        except AttributeError:  # pyvoy's answer when the request is headers alone is no future
            self.receive = _nothing  # nor would it ever tell that the caller is gone
            ended: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
            ended.set_result(_NO_BODY)
            ended.add_done_callback(arrived)

    def expire_in(self, seconds: float) -> None:
        """Ends the call with DEADLINE_EXCEEDED unless it is over by then."""
        self._timer = True
        asyncio.get_running_loop().call_later(max(0.0, seconds), self._expire)

    def cancel(self) -> None:
        """Ends the call: its handler is cancelled, and cleans up."""
        if self._over:
            return
        self._over = True
        if self._work is None:
            self._run_out()
        else:
            # Not at once: a task that has not begun would never know.
            asyncio.get_running_loop().call_soon(self._interrupt, self._work)

    def _interrupt(self, work: asyncio.Task[None] | UnderWay) -> None:
        """Cancels the handler, unless it knows: then it is cleaning up, and is left to it."""
        if not self._leaving:
            work.cancel()

    def _all_is_read(self) -> bool:
        """Whether no event is outstanding that would tell of the caller's end."""
        return True

    def _looked(self, future: asyncio.Future[Event]) -> None:
        if future.result()["type"] == "http.disconnect":
            self._gone()

    def _gone(self) -> None:
        """The caller went away: nobody hears what is said now."""
        self._started = self._late = False
        self._send = _nobody
        self.cancel()

    def _expire(self) -> None:
        if not self._over:
            self._late = True
            self.cancel()

    def _begin(self, incoming: object) -> None:
        route = self._route
        if route.begin is not None:
            self._work = route.begin(incoming, self._call, self._told)
        else:
            run = self._give_many(incoming) if route.many else self._give_one(incoming)
            self._work = asyncio.create_task(run)

    async def _give_one(self, incoming: object) -> None:
        try:
            response: bytes = await self._route.answer(incoming, self._call)
        except BaseException as error:  # noqa: BLE001 (what becomes of it is decided there)
            self._failed(error)
        else:
            self._told(response, None)

    def _told(self, response: bytes, error: BaseException | None) -> None:
        """Ends the call with its one answer, or with what went wrong."""
        self._work = None  # it knows this exchange: a cycle would have to be found
        if error is not None:
            self._failed(error)
            return
        self._over = True
        send = self._send
        if len(response) < _COMPRESSED_FROM_BYTES or not self._takes_gzip():
            send(_START)
            send({"type": "http.response.body", "body": frame(response)})
        else:
            send(_COMPRESSED_START)
            send({"type": "http.response.body", "body": compressed_frame(response)})
        send(self._trailers())
        self._route.ended(self)

    async def _give_many(self, incoming: object) -> None:
        try:
            answers: AsyncIterator[bytes] = self._route.answer(incoming, self._call)
            async with aclosing(cast("Any", answers)) as responses:
                async for response in responses:
                    await self._give(response)
        except BaseException as error:  # noqa: BLE001 (what becomes of it is decided there)
            self._failed(error)
            return
        self._over = True
        if not self._started:
            self._send(_START)
        self._send(_LAST_BODY)
        self._send(self._trailers())
        self._route.ended(self)

    async def _give(self, response: bytes) -> None:
        """Sends one of many answers; waits while the caller reads slower than that."""
        if not self._started:
            self._started = True
            self._send(_START)
        event = {"type": "http.response.body", "body": frame(response), "more_body": True}
        try:
            await self._send(event)
        except OSError as error:  # pyvoy's word for a caller that is gone
            self._over = self._leaving = True
            self._started = False
            self._send = _nobody
            raise asyncio.CancelledError from error

    def _takes_gzip(self) -> bool:
        return b"gzip" in self._received.headers.get(b"grpc-accept-encoding", b"")

    def _trailers(self) -> Event:
        metadata = self._call.trailing_metadata
        if not metadata:
            return _TRAILERS
        return {**_TRAILERS, "headers": [_OK, *metadata_headers(metadata)]}

    def _failed(self, error: BaseException) -> None:
        """Ends the call with a status that is not OK."""
        self._over = True
        if isinstance(error, asyncio.CancelledError):
            self._run_out()
            return
        if not isinstance(error, ServiceError | StatusError):
            log.error("call_failed", method=self._call.method, exc_info=error)
            error = StatusError(grpc.StatusCode.INTERNAL, "a fault of the service")
        self._refuse(error)

    def _run_out(self) -> None:
        if self._late:
            self._refuse(DeadlineExceededError())
        else:
            self._refuse(StatusError(grpc.StatusCode.UNAVAILABLE, "the process ends"))

    def _refuse(self, error: ServiceError | StatusError) -> None:
        """Ends the call; with Trailers-Only when nothing was sent: clients may retry."""
        headers = [*status_headers(error), *metadata_headers(self._call.trailing_metadata)]
        if self._started:
            self._send(_LAST_BODY)
            self._send({**_TRAILERS, "headers": headers})
        else:
            answer_with(self._send, 200, [_CONTENT, _ACCEPTS, *headers])
        self._route.ended(self)


def _nothing() -> asyncio.Future[Event]:
    """Where no event will come from."""
    return asyncio.get_running_loop().create_future()


def _nobody(_: Event) -> asyncio.Future[None]:
    """Where events go when the caller is gone."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done
