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
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from services.edge.http.accel import without_name
from services.edge.http.answer import Answer, Finished
from services.edge.http.connection import Connection
from services.edge.http.hits import Asked, Hits
from services.edge.http.listener import bind, bind_front, serve_front
from services.edge.http.refusals import refusal, unread
from services.rpc.errors import OverloadedError, ServiceError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 20.0
REFUSED_S = 1.0
"""So long a connection too many may take to ask; then it is cut off instead of refused."""
KEEP_ALIVE_S = 75
_CLEAN_UP_S = 5.0
_USUAL_BYTES = 2048


class HttpServer:
    """Serves an ASGI application on one address.

    Args:
        application: gets the client's ``Connection`` as ``scope["state"]["connection"]``.
        listen: ``host:port``; port 0 picks a free one.
        front_socket: a Unix socket besides, for a front on this machine; without TLS.
        tls: None for plain text.
        drain_s: how long ``drain`` lets answers finish.
        max_connections: further ones are refused (OVERLOADED), whatever they ask.
        hits: is asked first for the answer to a plain GET, where there is no TLS.
    """

    def __init__(
        self,
        application: Application,
        *,
        listen: str,
        front_socket: Path | None = None,
        tls: ssl.SSLContext | None = None,
        drain_s: float = 10.0,
        hits: Hits | None = None,
        max_connections: int = 8192,
    ) -> None:
        self._listen = listen
        self.hits = hits
        # Its lines are about mistakes of clients; ours say what became of each request.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        config = uvicorn.Config(
            application,
            http=cast("type[asyncio.Protocol]", partial(_Protocol, hits, max_connections)),
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
        self._front_socket = front_socket
        self._serving: asyncio.Task[None] | None = None
        self.address = ""
        """Where it listens, ``host:port``; known after ``start``."""

    async def start(self) -> None:
        """Listens. Raises OSError when the address cannot be had."""
        if self._front_socket is not None:
            self._server.front = bind_front(self._front_socket)
        listener = bind(self._listen)
        host = self._listen.rpartition(":")[0]
        self.address = f"{host}:{listener.getsockname()[1]}"
        self._serving = asyncio.create_task(self._server.serve([listener]))
        started = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._serving, started}, return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            started.cancel()
            await self._serving

    def cut_off(self, cid: str) -> int:
        """Ends the connections over which an object is being sent; how many."""
        state = self._server.server_state
        clients = [cast("Connection", protocol.transport) for protocol in state.connections]
        sending = [client for client in clients if client.delivers == cid]
        for client in sending:
            client.abort()
        return len(sending)

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
        self.front: socket.socket | None = None
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
        if self.front is not None:
            self.servers.append(await serve_front(self.front, self))
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
        await asyncio.sleep(0)  # an aborted connection hears of it in the next turn


class _Protocol(HttpToolsProtocol):
    """A client's connection: uvicorn's, counted and bounded."""

    cycle: Any
    """The latest request: uvicorn's RequestResponseCycle, Answer, Finished, or None before any."""

    def __init__(
        self,
        hits: Hits | None,
        max_connections: int,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, dict(app_state), _loop)
        self._connection: Connection = None  # type: ignore[assignment]  # made with the transport
        self._hits = hits
        self._max_connections = max_connections
        self._answer: Answer | None = None
        """The latest that was given at once, finished or not."""
        self._usual: tuple[bytes, Asked] | None = None
        """How the head of a hit on this connection went on behind its path, and what that says."""
        self._asked: Asked | None = None
        """What the fields of the latest hit say."""
        self._messages = 0
        """How many began in what was received last."""
        self._beginning = b""
        """What is being read, if it began with a message."""
        self._in_message = False
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._is_deaf = False
        self._is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection = Connection(cast("asyncio.Transport", transport))
        self.app_state["connection"] = self._connection
        super().connection_made(cast("asyncio.Transport", self._connection))
        if self.scheme != "http":
            self._hits = None
        self._is_refused = len(self.connections) > self._max_connections
        patience_s = REFUSED_S if self._is_refused else HEAD_TIMEOUT_S
        self._head_timer = self.loop.call_later(patience_s, self._connection.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._connection.end(exc)
        if self._answer is not None:
            self._answer.lost()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._connection.drained()
        if self._answer is not None:
            self._answer.drained()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self._is_refused:
            self._is_deaf = True
            self._refuse(OverloadedError())
            return
        if self._in_head:
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()
                return
            self._head_bytes += len(data)
        nameless, self._connection.request_name = without_name(data)
        if self._usual is not None and self._answers_usual(nameless, *self._usual):
            return
        is_start, self._messages = not self._in_message, 0
        self._beginning = data if is_start else b""
        super().data_received(data)
        self._beginning = b""
        if is_start and self._messages == 1 and not self._in_message:
            self._learn(nameless)
        if self._in_head and self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.abort)

    def _learn(self, data: bytes) -> None:
        """Remembers what was received, which is one request, if it was answered at once."""
        asked, self._asked = self._asked, None
        start = b"GET %b HTTP/1.1\r\n" % self.url
        if asked is not None and len(data) <= _USUAL_BYTES and data.startswith(start):
            self._usual = (data[4 + len(self.url) :], asked)

    def _answers_usual(self, data: bytes, usual: bytes, asked: Asked) -> bool:
        """Answers a GET that differs from an earlier one in its path alone: nothing is parsed.

        Clients that keep a connection send the same fields again and again.
        """
        if (
            self._in_message
            or not data.endswith(usual)
            or not data.startswith(b"GET /")
            or not self._is_free()
        ):
            return False
        self._idle_since = None
        # If more than a path stands there, it is no path that Hits knows.
        return self._answers_hit(data[4 : -len(usual)], asked)

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not HTTP; never in the middle of an answer that is under way."""
        self.pipeline.clear()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            # What follows on this connection means nothing any more; the answer goes out whole.
            cycle.keep_alive = False  # if it has not begun, it says that it is the last
            self._is_deaf = True
            return
        self._refuse(unread(self._beginning if self._messages == 1 else b"", msg))

    def _refuse(self, error: ServiceError) -> None:
        """Answers whatever was asked with a problem, and ends the connection."""
        self.transport.write(refusal(error))
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._messages += 1
        self._in_message = True
        self._head_bytes = 0
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._idle_since = None  # only now: empty lines, or an old body, are no request
        self._stop_head_timer()
        self._connection.delivers = ""
        self._asked = None
        if self._hits is not None and self._is_plain_get():
            asked = self._hits.read(self.headers)
            if asked is not None and self._answers_hit(self.url, asked):
                self._asked = asked
                return
        if self._answer is None or self._answer.response_complete:
            self._connection.tell_most()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()

    def _is_plain_get(self) -> bool:
        """Whether a GET that keeps its connection was received, and is the next to be answered."""
        parser = self.parser
        return (
            parser.get_method() == b"GET"
            and self._is_free()
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
        )

    def _is_free(self) -> bool:
        """Whether no answer is under way, nor waited for."""
        cycle = self.cycle
        return (
            (cycle is None or cycle.response_complete)
            and not self.pipeline
            and self._connection.is_idle
        )

    def _answers_hit(self, path: bytes, asked: Asked) -> bool:
        """Answers a plain GET, if that can be done at once."""
        if self._hits is None:
            return False
        answer = self._hits.answer(path, asked, self._connection, self._answered)
        if answer is None:
            return False
        self.cycle = answer
        if isinstance(answer, Finished):
            self._pause()
        else:
            self._answer = answer
        return True

    def _answered(self) -> None:
        """An answer that was given at once has ended."""
        if self._answer is not None and not self._answer.keep_alive:
            self.transport.close()
        if self.pipeline:
            self._connection.tell_most()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """As uvicorn's, with one timer for all the pauses of a connection."""
        if self._is_deaf:
            self.transport.close()
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._pause()

    def _pause(self) -> None:
        """Nothing is under way any more, until the client asks again."""
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._end_if_idle)

    def _end_if_idle(self) -> None:
        self._idle_timer = None
        if self._idle_since is None:
            return
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s <= 0:
            self.timeout_keep_alive_handler()
        else:
            self._idle_timer = self.loop.call_later(left_s, self._end_if_idle)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
