"""Calls to other services: deadlines, ids and errors travel by themselves.

    channel = connect(settings.credits_target, errors=credits.errors.ERRORS)
    answer = await CreditServiceStub(channel).Debit(request)

A call raises the exception class that the server raised, when ``errors`` (or the errors of any
service) has its reason; see ``_failure`` for the others. Nothing is retried here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from typing import Any, Self, cast

import grpc

from services.rpc.call import Call
from services.rpc.errors import (
    DeadlineExceededError,
    DependencyUnavailableError,
    InternalError,
    NoAnswerError,
    ServiceError,
)
from services.rpc.tls import ClientTls
from services.rpc.trace import REQUEST_ID_KEY, TRACE_PARENT_KEY
from services.rpc.wire import DETAILS_KEY, ErrorClasses, classes_by_reason, decode

_OPTIONS = [
    # A service that has come up, or again, is found within a quarter of a second, not after gRPC's
    # default of up to two minutes. A try that nobody answers costs one packet.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long a connection may take to come about: over a long way and with TLS more than 100 ms.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 250),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # The mesh's services are reached directly, whatever proxy the environment names for others.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    # Of several addresses, each has its share of the calls; one that fails has none.
    ("grpc.lb_policy_name", "round_robin"),
]

_Untyped = Any
"""Channels, calls and messages as grpc.aio and generated code pass them, of any kind."""


def connect(
    target: str,
    *,
    errors: Iterable[type[ServiceError]] = (),
    tls: ClientTls | None = None,
    default_deadline_s: float = 5.0,
    max_message_bytes: int = 8 * 1024 * 1024,
) -> grpc.aio.Channel:
    """A channel for generated stubs; made inside a running event loop, closed by its owner.

    Args:
        target: ``host:port``, or ``ipv4:HOST:PORT,HOST:PORT`` for several processes of a service;
            all addresses, also of a name that has several, are called by turns.
        errors: what the service raises besides the errors of any service.
        tls: None for plain text.
        default_deadline_s: for calls with one answer and one request whose caller passes no
            ``timeout``; streams have none of their own. Every call also ends with the deadline of
            the call that is being served (``Call.current()``); when that has passed, starting one
            raises DeadlineExceededError.
        max_message_bytes: the largest answer.
    """
    options = [*_OPTIONS, ("grpc.max_receive_message_length", max_message_bytes)]
    if tls is None:
        channel = grpc.aio.insecure_channel(target, options)
    else:
        credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
        channel = grpc.aio.secure_channel(target, credentials, options)
    return cast(
        "grpc.aio.Channel", _Channel(channel, classes_by_reason(errors), default_deadline_s)
    )


class _Channel:
    """Stands before a channel of ``grpc.aio``; interceptors would cost a task for each call."""

    def __init__(self, channel: _Untyped, classes: ErrorClasses, default_deadline_s: float) -> None:
        self._channel = channel
        self._classes = classes
        self._default_deadline_s = default_deadline_s

    def unary_unary(self, *args: object, **kwargs: object) -> Callable[..., _Answer]:
        return self._wrap(self._channel.unary_unary(*args, **kwargs), self._default_deadline_s)

    def unary_stream(self, *args: object, **kwargs: object) -> Callable[..., _Answer]:
        return self._wrap(self._channel.unary_stream(*args, **kwargs), None)

    def stream_unary(self, *args: object, **kwargs: object) -> Callable[..., _Answer]:
        return self._wrap(self._channel.stream_unary(*args, **kwargs), None)

    def stream_stream(self, *args: object, **kwargs: object) -> Callable[..., _Answer]:
        return self._wrap(self._channel.stream_stream(*args, **kwargs), None)

    def __getattr__(self, name: str) -> _Untyped:
        return getattr(self._channel, name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    def _wrap(self, start: _Untyped, default_deadline_s: float | None) -> Callable[..., _Answer]:
        classes = self._classes

        def call(
            request: _Untyped = None,
            timeout: float | None = default_deadline_s,
            metadata: _Untyped = None,
            **options: object,
        ) -> _Answer:
            timeout, metadata = _inherit(timeout, metadata)
            outgoing = None
            if isinstance(request, AsyncIterable):
                outgoing = request = _Outgoing(request)
            started = start(request, timeout=timeout, metadata=metadata, **options)
            return _Answer(started, classes, outgoing)

        return call


def _inherit(timeout: float | None, metadata: _Untyped) -> tuple[float | None, _Untyped]:
    """What a call takes over from the call that is being served: its ids and what time is left."""
    current = Call.current()
    if current is None:
        return timeout, metadata
    ids = ((REQUEST_ID_KEY, current.request_id), (TRACE_PARENT_KEY, current.trace_parent))
    remaining = current.remaining_s()
    if remaining is not None and (timeout is None or remaining < timeout):
        if remaining == 0:  # gRPC would still send it, and a handler might still begin
            raise DeadlineExceededError
        timeout = remaining
    return timeout, ids if metadata is None else (*metadata, *ids)


class _Outgoing:
    """The caller's requests; remembers what went wrong in making them, which grpc.aio forgets."""

    def __init__(self, requests: AsyncIterable[object]) -> None:
        self._requests = aiter(requests)
        self.failure: Exception | None = None

    def __aiter__(self) -> AsyncIterator[object]:
        return self

    async def __anext__(self) -> object:
        try:
            return await anext(self._requests)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.failure = error
            raise


class _Answer:
    """A call under way, like ``grpc.aio``'s, that raises ServiceErrors."""

    __slots__ = ("_call", "_classes", "_outgoing")

    def __init__(self, call: _Untyped, classes: ErrorClasses, outgoing: _Outgoing | None) -> None:
        self._call = call
        self._classes = classes
        self._outgoing = outgoing

    def __await__(self) -> Generator[object, None, object]:
        try:
            return (yield from self._call.__await__())
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from error
        except asyncio.CancelledError:
            self._raise_own_failure()
            raise

    def __aiter__(self) -> AsyncIterator[object]:
        return self

    async def __anext__(self) -> object:
        response = await self.read()
        if response is grpc.aio.EOF:
            raise StopAsyncIteration
        return response

    async def read(self) -> object:
        """The next answer, or ``grpc.aio.EOF``."""
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from error
        except asyncio.CancelledError:
            self._raise_own_failure()
            raise

    def __getattr__(self, name: str) -> _Untyped:
        return getattr(self._call, name)

    def _failure(self, error: grpc.aio.AioRpcError) -> ServiceError:
        self._raise_own_failure()
        return _failure(error, self._classes)

    def _raise_own_failure(self) -> None:
        """Raises what ended the caller's own requests; grpc.aio cancels the call for it."""
        if self._outgoing is not None and self._outgoing.failure is not None:
            raise self._outgoing.failure


def _failure(error: grpc.aio.AioRpcError, classes: ErrorClasses) -> ServiceError:
    """The server's own error; else what the transport's code means; else InternalError.

    An InternalError made here has no incident id: the server that lets it pass on gives it one and
    logs it with its cause.
    """
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            known = decode(value, classes)
            if known is not None:
                return known
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return NoAnswerError()
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
        return DependencyUnavailableError()
    return InternalError(f"a service answered {code.name}, which its contract does not have")
