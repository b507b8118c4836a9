"""The HTTP server: uvicorn with httptools, one process, drained without losses.

uvicorn was chosen by measurement (docs/decisions/0003-http-server.md). What it lacks is added here:
every connection counts what was really sent, request heads are bounded in size and time, and the
process, not uvicorn, handles signals.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from services.edge.http.connection import Connection
from services.edge.http.problems import problem
from services.rpc.errors import InvalidArgumentError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 20.0
KEEP_ALIVE_S = 75
_CLEAN_UP_S = 5.0
# How much the kernel may hold of a connection that it cannot send yet. Its default, up to 4 MiB,
# is memory for nothing when readers stall.
_UNSENT_BYTES = 128 * 1024
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class HttpServer:
    """Serves an ASGI application on one address.

    Args:
        application: gets the client's ``Connection`` as ``scope["state"]["connection"]``.
        listen: ``host:port``; port 0 picks a free one.
        tls: None for plain text.
        drain_s: how long ``drain`` lets answers finish.
    """

    def __init__(
        self,
        application: Application,
        *,
        listen: str,
        tls: ssl.SSLContext | None = None,
        drain_s: float = 10.0,
    ) -> None:
        self._listen = listen
        # Its lines are about mistakes of clients; ours say what became of each request.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        config = uvicorn.Config(
            application,
            http=_Protocol,
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,  # an answer out of a cache has a Date of its own
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(drain_s)),
            ssl_context_factory=(lambda *_: tls) if tls is not None else None,
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None
        self.address = ""
        """Where it listens, ``host:port``; known after ``start``."""

    async def start(self) -> None:
        """Listens. Raises OSError when the address cannot be had."""
        listener = _bind(self._listen)
        host = self._listen.rpartition(":")[0]
        self.address = f"{host}:{listener.getsockname()[1]}"
        self._serving = asyncio.create_task(self._server.serve([listener]))
        started = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._serving, started}, return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            started.cancel()
            await self._serving

    async def drain(self) -> None:
        """Stops listening, lets answers finish that are under way, then cuts off the others."""
        if self._serving is not None:
            self._server.stop_soon()
            await self._serving
            await self._server.cut_off()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop_soon(self) -> None:
        """Begins the end of the server."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Renews the Date header every second, until the server is to stop."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._stopping.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The process handles signals itself."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens."""
        await super().startup(sockets)
        self.listening.set()

    async def cut_off(self) -> None:
        """Ends what is left of connections, and waits until their requests have cleaned up."""
        tasks = set(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        for connection in set(self.server_state.connections):
            connection.transport.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLEAN_UP_S)


class _Protocol(HttpToolsProtocol):
    """A client's connection: uvicorn's, counted and bounded."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, dict(app_state), _loop)
        self._connection: Connection | None = None
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._is_deaf = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection = Connection(cast("asyncio.Transport", transport))
        self.app_state["connection"] = self._connection
        super().connection_made(cast("asyncio.Transport", self._connection))
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._connection.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        if self._connection is not None:
            self._connection.end(exc)
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._connection is not None:
            self._connection.drained()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self._head_timer is not None:
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()
                return
            self._head_bytes += len(data)
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not HTTP; never in the middle of an answer that is under way."""
        self.pipeline.clear()
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        if cycle is not None and not cycle.response_complete:
            # What follows on this connection means nothing any more; the answer goes out whole.
            cycle.keep_alive = False
            self._is_deaf = True
            return
        answer = problem(InvalidArgumentError(msg))
        fields = (*answer.headers, (b"connection", b"close"))
        head = b"".join(b"%b: %b\r\n" % field for field in fields)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + answer.body)
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.abort)

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        super().on_headers_complete()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _bind(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if _TCP_NOTSENT_LOWAT is not None:
            listener.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        listener.bind((host, int(port)))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {listen}: {error.strerror}") from error
    return listener
