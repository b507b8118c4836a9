"""The server face on ``grpc.aio``: takes calls from the wire, hands them to the pipeline.

Owns what only this library knows: its handlers, contexts, ports, credentials, health, reflection.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any, NoReturn, cast
from urllib.parse import unquote

import grpc
from grpc_health.v1 import (  # type: ignore[import-untyped]  # has none
    health,
    health_pb2,
    health_pb2_grpc,
)

from services.rpc.call import Call
from services.rpc.errors import ServiceError
from services.rpc.methods import Method
from services.rpc.pipeline import Incoming, Limits, Pipeline, unlogged_stream
from services.rpc.reflection import reflection_methods
from services.rpc.tls import ServerTls
from services.rpc.wire import DETAILS_KEY, encode, message_of

_Context = Any
"""``grpc.aio.ServicerContext``, whose stubs know less than it does."""
_Handler = Callable[[Incoming, _Context], Awaitable[Any]]

_CANCELLATION_FOLLOWS_S = 5.0
"""How long after a failed write grpc.aio cancels the handler, at most; mostly it takes 0.1 ms."""


class GrpcioFace:
    """One ``grpc.aio`` server."""

    def __init__(
        self,
        methods: Iterable[Method],
        services: Iterable[str],
        pipeline: Pipeline,
        limits: Limits,
        tls: ServerTls | None,
        *,
        listen: str,
    ) -> None:
        self._listen = listen
        self._services = tuple(services)
        self._methods = tuple(methods)
        self._pipeline = pipeline
        self._limits = limits
        self._tls = tls
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> str:
        """Listens; gives the address with the port that was chosen. Raises OSError."""
        server = self._server = grpc.aio.server(options=_options(self._limits))
        mutual = self._tls is not None and self._tls.client_ca is not None
        table = _Table(self._methods, self._pipeline, self._services, identify=mutual)
        server.add_generic_rpc_handlers([table])
        registry = _OnlyGenericHandlers(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, registry)
        port = _bind(server, self._listen, self._tls)
        await server.start()
        for name in ("", *self._services):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return f"{self._listen.rpartition(':')[0]}:{port}"

    async def announce_drain(self) -> None:
        """Tells those who ask for the health of this process that it is going away."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Stops listening; calls still under way after ``grace_s`` are cancelled."""
        if self._server is not None:
            await self._server.stop(grace_s)

    async def flush(self) -> None:
        """Nothing: a server that has stopped has sent everything."""


class _Table(grpc.GenericRpcHandler):
    """The methods by their path, and reflection of their services."""

    def __init__(
        self,
        methods: Iterable[Method],
        pipeline: Pipeline,
        services: Iterable[str],
        *,
        identify: bool,
    ) -> None:
        self._handlers = {
            method.path: _rpc_handler(method, pipeline, identify=identify) for method in methods
        }
        for method in reflection_methods(services):
            handle: Any = _streaming(method.path, unlogged_stream(method), identify=False)
            handler = _from_stream(handle, one_answer=False)
            self._handlers[method.path] = grpc.stream_stream_rpc_method_handler(handler)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._handlers.get(handler_call_details.method)


class _OnlyGenericHandlers:
    """A server for generated code to register with, that leaves out each method's own handler.

    For every call that it takes, grpc.aio waits on a future for each registered method.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Leaves it at the generic handlers."""


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        # The pipeline refuses what is too large with a proper error; this is the hard stop.
        ("grpc.max_receive_message_length", 2 * limits.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # A second process on the same port is a mistake, not a way to share the load.
        ("grpc.so_reuseport", 0),
        # A peer that vanished without a word is noticed within 40 s.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _bind(server: grpc.aio.Server, listen: str, tls: ServerTls | None) -> int:
    try:
        _try_to_bind(listen)
        if tls is None:
            return server.add_insecure_port(listen)
        credentials = grpc.ssl_server_credentials(
            [(tls.key, tls.certificate)],
            root_certificates=tls.client_ca,
            require_client_auth=tls.client_ca is not None,
        )
        return server.add_secure_port(listen, credentials)
    except (OSError, RuntimeError) as error:
        raise OSError(f"cannot listen on {listen}: {error}") from error


def _try_to_bind(listen: str) -> None:
    """Raises OSError with the system's reason; of gRPC one only learns that it failed."""
    host, _, port = listen.rpartition(":")
    if port != "0":
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        socket.create_server((host.strip("[]"), int(port)), family=family).close()


def _rpc_handler(
    method: Method, pipeline: Pipeline, *, identify: bool
) -> grpc.RpcMethodHandler[Any, Any]:
    """Without serialisers: messages are bytes on this side, the pipeline does the rest."""
    handle: Any
    if method.server_streaming:
        handle = _streaming(method.path, pipeline.stream_answer(method), identify=identify)
        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(_from_stream(handle, one_answer=False))
        return grpc.unary_stream_rpc_method_handler(handle)
    handle = _answering(method.path, pipeline.unary_answer(method), identify=identify)
    if method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(_from_stream(handle, one_answer=True))
    return grpc.unary_unary_rpc_method_handler(handle)


def _answering(
    path: str, answer: Callable[[Incoming, Call], Awaitable[bytes]], *, identify: bool
) -> _Handler:
    async def handle(incoming: Incoming, context: _Context) -> bytes:
        call = _call(path, context, identify=identify)
        try:
            response = await answer(incoming, call)
        except ServiceError as error:
            await _refuse(context, call, error)
        if call.trailing_metadata:
            context.set_trailing_metadata(tuple(call.trailing_metadata.items()))
        return response

    return handle


def _streaming(
    path: str, answers: Callable[[Incoming, Call], AsyncIterator[bytes]], *, identify: bool
) -> _Handler:
    async def handle(incoming: Incoming, context: _Context) -> None:
        call = _call(path, context, identify=identify)
        try:
            async with aclosing(cast("Any", answers(incoming, call))) as responses:
                async for response in responses:
                    await _write(context, response)
        except ServiceError as error:
            await _refuse(context, call, error)
        if call.trailing_metadata:
            context.set_trailing_metadata(tuple(call.trailing_metadata.items()))

    return handle


async def _write(context: _Context, response: bytes) -> None:
    """Sends an answer; when the call is over, returns only by the handler's cancellation.

    That a caller went away, grpc.aio hears twice: the write under way fails (ExecuteBatchError, an
    InternalError), and ReceiveCloseOnServer, for which it cancels the handler's task, completes.
    Core puts the two into its queue in either order. A handler that began to clean up because of
    the failure would be cancelled in the middle of that.
    """
    try:
        await context.write(response)
    except grpc.aio.InternalError:
        await asyncio.sleep(_CANCELLATION_FOLLOWS_S)
        raise


def _from_stream(handle: _Handler, *, one_answer: bool) -> Any:  # noqa: ANN401 (the stubs want a sync handler)
    """Reads the caller's stream through the context: its own iterator cannot be put down early."""

    async def handle_stream(_: object, context: _Context) -> object:
        return await handle(_IncomingStream(context, confirm_end=one_answer), context)

    return handle_stream


class _IncomingStream:
    """A caller's messages; at its end the caller has sent them all.

    grpc.aio reads EOF when the caller ends its stream, and just as well when it goes away in the
    middle; the cancellation follows up to milliseconds later. An upload must not look complete
    then. Whether the call still lives shows when something is sent: the initial metadata, which an
    answer would bring anyway.
    """

    def __init__(self, context: _Context, *, confirm_end: bool) -> None:
        self._context = context
        self._confirm_end = confirm_end

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raw = await self._context.read()
        if raw is not grpc.aio.EOF:
            return cast("bytes", raw)
        if self._confirm_end:
            self._confirm_end = False
            try:
                await self._context.send_initial_metadata(())
            except grpc.aio.InternalError:
                await asyncio.sleep(_CANCELLATION_FOLLOWS_S)  # as in _write
                raise
        raise StopAsyncIteration


def _call(path: str, context: _Context, *, identify: bool) -> Call:
    remaining = context.time_remaining()
    return Call(
        path,
        {key: value for key, value in context.invocation_metadata() if type(value) is str},
        None if remaining is None else time.monotonic() + remaining,
        peer=_peer(context.peer()),
        identity=_identity(context.auth_context()) if identify else "",
    )


def _peer(text: str) -> str:
    """``ipv4:127.0.0.1:4321`` and ``ipv6:%5B::1%5D:4321`` as ``host:port``."""
    return text[5:] if text.startswith("ipv4:") else unquote(text.removeprefix("ipv6:"))


def _identity(auth_context: dict[str, list[bytes]]) -> str:
    """The common name of the caller's certificate, else its first alternative name."""
    for key in ("x509_common_name", "x509_subject_alternative_name"):
        for name in auth_context.get(key, ()):
            if name:
                return name.decode(errors="replace")
    return ""


async def _refuse(context: _Context, call: Call, error: ServiceError) -> NoReturn:
    """Ends the call with a status and nothing else (Trailers-Only), which clients may retry."""
    metadata = (*call.trailing_metadata.items(), (DETAILS_KEY, encode(error)))
    await context.abort(error.code, message_of(error), metadata)
    raise AssertionError("abort does not return")
