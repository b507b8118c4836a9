"""The kinds of calls inside Envoy: one request, or a stream of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import grpc

from services.process.inside import Event, Receive, Send
from services.rpc.call import Call
from services.rpc.envoy_exchange import Exchange, Route
from services.rpc.errors import ServiceError, StatusError
from services.rpc.framing import PREFIX_BYTES, Messages
from services.rpc.metadata import Received
from services.rpc.methods import Method

_READ_AHEAD_BYTES = 64 * 1024


def exchange_of(method: Method) -> type[Exchange]:
    """The class for the calls of a method."""
    return ManyRequests if method.client_streaming else OneRequest


class OneRequest(Exchange):
    """A call whose caller sends one message."""

    __slots__ = ("_body", "_complete")

    def __init__(
        self, route: Route, call: Call, metadata: Received, receive: Receive, send: Send
    ) -> None:
        super().__init__(route, call, metadata, receive, send)
        self._body: Messages | None = None
        self._complete: list[bytes] = []
        self.ask(self._arrived)

    def _arrived(self, future: asyncio.Future[Event]) -> None:
        event = future.result()
        if self._over:
            return
        if event["type"] == "http.disconnect":
            self._gone()
            return
        body: bytes = event["body"]
        if (
            not event["more_body"]
            and self._body is None
            and body[:1] == b"\x00"
            and int.from_bytes(body[1:PREFIX_BYTES], "big") == len(body) - PREFIX_BYTES
        ):
            self._begin(body[PREFIX_BYTES:])  # as nearly all are: whole, and not compressed
        else:
            self._gather(body, more=event["more_body"])

    def _gather(self, body: bytes, *, more: bool) -> None:
        if self._body is None:
            encoding = self._received.headers.get(b"grpc-encoding")
            self._body = Messages(encoding, self._route.limit)
        try:
            self._complete.extend(self._body.feed(body))
        except (ServiceError, StatusError) as error:
            self._begin(error)
            return
        if more:
            self.receive().add_done_callback(self._arrived)
        elif len(self._complete) == 1 and not self._body.unfinished:
            self._begin(self._complete.pop())
        else:
            self._begin(StatusError(grpc.StatusCode.INTERNAL, "the request is not one message"))


class ManyRequests(Exchange):
    """A call whose caller sends a stream of messages; itself the iterator that handlers read.

    It ends only when the caller said that it has sent them all: a caller that goes away in the
    middle cancels the handler, so that what it sent never looks complete.
    """

    __slots__ = ("_bytes", "_ended", "_error", "_messages", "_queue", "_reading", "_wanted")

    def __init__(
        self, route: Route, call: Call, metadata: Received, receive: Receive, send: Send
    ) -> None:
        super().__init__(route, call, metadata, receive, send)
        self._messages = Messages(metadata.headers.get(b"grpc-encoding"), route.limit)
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._ended = False
        self._error: ServiceError | StatusError | None = None
        self._wanted: asyncio.Future[None] | None = None
        self._reading = False
        self._read()
        self._begin(self)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._queue:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._read()
            self._wanted = asyncio.get_running_loop().create_future()
            await self._wanted
        message = self._queue.popleft()
        self._bytes -= len(message)
        self._read()
        return message

    def _all_is_read(self) -> bool:
        return not self._reading and (self._ended or self._error is not None)

    def _read(self) -> None:
        """Asks for more while there is room; with a full queue Envoy holds the caller back."""
        if self._reading or self._ended or self._error is not None:
            return
        if self._bytes < _READ_AHEAD_BYTES or not self._queue:
            self._reading = True
            self.ask(self._arrived)

    def _arrived(self, future: asyncio.Future[Event]) -> None:
        self._reading = False
        event = future.result()
        if self._over:
            return
        if event["type"] == "http.disconnect":
            self._gone()
            return
        try:
            for message in self._messages.feed(event["body"]):
                self._queue.append(message)
                self._bytes += len(message)
        except (ServiceError, StatusError) as error:
            self._error = error
        if not event["more_body"]:
            self._ended = True
            if self._messages.unfinished and self._error is None:
                what = "the last message is not whole"
                self._error = StatusError(grpc.StatusCode.INTERNAL, what)
        self._read()
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)
