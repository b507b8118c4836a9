"""The server face on ``grpc.aio``: takes calls from the wire, hands them to the pipeline.

Owns what only this library knows: its handlers, contexts, ports, credentials, health, reflection.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any, cast
from urllib.parse import unquote

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from services.rpc.call import Call
from services.rpc.errors import ServiceError
from services.rpc.methods import Method
from services.rpc.pipeline import Limits, Pipeline
from services.rpc.tls import ServerTls
from services.rpc.wire import DETAILS_KEY, encode

_Context = Any  # grpc.aio's servicer context; its type says less than it does


class GrpcioFace:
    """One ``grpc.aio`` server."""

    def __init__(
        self,
        methods: Iterable[Method],
        services: Iterable[str],
        pipeline: Pipeline,
        limits: Limits,
        tls: ServerTls | None,
    ) -> None:
        self._services = tuple(services)
        self._methods = tuple(methods)
        self._pipeline = pipeline
        self._limits = limits
        self._tls = tls
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None

    async def start(self, listen: str) -> str:
        """Listens; gives the address with the port that was chosen. Raises OSError."""
        server = self._server = grpc.aio.server(options=_options(self._limits))
        mutual = self._tls is not None and self._tls.client_ca is not None
        for method in self._methods:
            service, name = method.path[1:].split("/")
            handler = _handler(method, self._pipeline, identify=mutual)
            server.add_registered_method_handlers(service, {name: handler})
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        port = _bind(server, listen, self._tls)
        await server.start()
        for name in ("", *self._services):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return f"{listen.rpartition(':')[0]}:{port}"

    async def announce_drain(self) -> None:
        """Tells those who ask for the health of this process that it is going away."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Stops listening; calls still under way after ``grace_s`` are cancelled."""
        if self._server is not None:
            await self._server.stop(grace_s)


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
        if tls is None:
            return server.add_insecure_port(listen)
        credentials = grpc.ssl_server_credentials(
            [(tls.key, tls.certificate)],
            root_certificates=tls.client_ca,
            require_client_auth=tls.client_ca is not None,
        )
        return server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {listen}: {error}") from error


def _handler(
    method: Method, pipeline: Pipeline, *, identify: bool
) -> grpc.RpcMethodHandler[Any, Any]:
    """Without serialisers: messages are bytes on this side, the pipeline does the rest."""
    path = method.path
    if method.server_streaming:
        stream = _streaming(path, pipeline.stream_answer(method), identify=identify)
        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(_from_stream(stream))
        return grpc.unary_stream_rpc_method_handler(stream)
    unary = _answering(path, pipeline.unary_answer(method), identify=identify)
    if method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(_from_stream(unary))
    return grpc.unary_unary_rpc_method_handler(unary)


def _answering(
    path: str, answer: Callable[[Any, Call], Awaitable[bytes]], *, identify: bool
) -> Any:
    async def handle(request: Any, context: _Context) -> bytes | None:
        call = _call(path, context, identify=identify)
        try:
            response = await answer(request, call)
        except ServiceError as error:
            _refuse(context, call, error)
            return None
        if call.trailing_metadata:
            context.set_trailing_metadata(tuple(call.trailing_metadata.items()))
        return response

    return handle


def _streaming(
    path: str, answers: Callable[[Any, Call], AsyncIterator[bytes]], *, identify: bool
) -> Any:
    async def handle(request: Any, context: _Context) -> None:
        call = _call(path, context, identify=identify)
        try:
            async with aclosing(cast("Any", answers(request, call))) as responses:
                async for response in responses:
                    await context.write(response)
        except ServiceError as error:
            _refuse(context, call, error)
            return
        if call.trailing_metadata:
            context.set_trailing_metadata(tuple(call.trailing_metadata.items()))

    return handle


def _from_stream(handle: Any) -> Any:
    """Reads the caller's stream through the context: its own iterator cannot be put down early."""

    async def handle_stream(_: object, context: _Context) -> Any:
        return await handle(_Incoming(context), context)

    return handle_stream


class _Incoming:
    def __init__(self, context: _Context) -> None:
        self._context = context

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raw = await self._context.read()
        if raw is grpc.aio.EOF:
            raise StopAsyncIteration
        return cast("bytes", raw)


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


def _refuse(context: _Context, call: Call, error: ServiceError) -> None:
    context.set_code(error.code)
    context.set_details(str(error))
    details = (DETAILS_KEY, encode(error))
    context.set_trailing_metadata((*call.trailing_metadata.items(), details))
