"""The server face inside Envoy: takes requests as ASGI events, hands them to the pipeline.

Owns what only this face knows: the table of methods, refusals before a call begins, who the caller
is by Envoy's word, and the clock that ends calls. What happens in a call: ``envoy_calls``.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from urllib.parse import unquote

import grpc

from services.process.inside import Event, Host, Receive, Send
from services.rpc.call import Call
from services.rpc.envoy_calls import exchange_of
from services.rpc.envoy_exchange import Exchange, Route, answer_with
from services.rpc.errors import StatusError
from services.rpc.framing import seconds_of, status_headers
from services.rpc.health import Health
from services.rpc.metadata import Received
from services.rpc.methods import Method
from services.rpc.pipeline import Limits, Pipeline
from services.rpc.reflection import reflection_methods

_CONTENT_TYPES = frozenset({b"application/grpc", b"application/grpc+proto"})
_is_grpc = re.compile(rb"application/grpc(?:[+;].*)?").fullmatch
_SWEEP_S = 0.05
"""How often calls under way are looked at: for deadlines that come near, for callers gone."""
_LAST_WRITE_S = 0.01
_MAX_IDENTITIES = 1000

_Make = Callable[[Route, Call, Received, Receive, Send], Exchange]


class EnvoyFace:
    """The server of a process that is Envoy."""

    def __init__(
        self,
        host: Host,
        methods: Iterable[Method],
        services: Iterable[str],
        pipeline: Pipeline,
        limits: Limits,
        *,
        identify: bool,
    ) -> None:
        self._host = host
        self._health = Health(services)
        self._identify = identify
        self._identities: dict[bytes, str] = {}
        self._live: set[Exchange] = set()
        self._sweep_due = False
        served = [(method, pipeline) for method in methods]
        quiet = [*self._health.methods(), *reflection_methods(services)]
        self._routes: dict[str, tuple[_Make, Route]] = {}
        for method, runner in (*served, *((method, None) for method in quiet)):
            route = Route.of(method, runner, limits.max_message_bytes, self._live.discard)
            self._routes[method.path] = (exchange_of(method), route)

    async def start(self) -> str:
        """Listens; gives the address with the port that was chosen. Raises OSError."""
        address = await self._host.listen(self._take, Exchange)
        self._health.announce(serving=True)
        return address

    async def announce_drain(self) -> None:
        """Tells those who ask for the health of this process that it is going away."""
        self._health.announce(serving=False)

    async def stop(self, grace_s: float) -> None:
        """Cancels the calls that are still under way after ``grace_s``."""
        end = time.monotonic() + grace_s
        while self._live and time.monotonic() < end:  # noqa: ASYNC110 (at the end, and short)
            await asyncio.sleep(_LAST_WRITE_S)
        for exchange in tuple(self._live):
            exchange.cancel()

    async def flush(self) -> None:
        """Returns once the last answers are on the wire."""
        await asyncio.sleep(_LAST_WRITE_S)

    def _take(self, scope: Event, receive: Receive, send: Send) -> object:
        """Begins a call; what it returns lives by the events that it asks for."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        found = self._routes.get(scope["path"])
        if (
            found is None
            or headers.get(b"content-type") not in _CONTENT_TYPES
            or scope["method"] != "POST"
        ):
            return _Refused(scope, headers, send)
        make, route = found
        timeout = headers.get(b"grpc-timeout")
        remaining = None if timeout is None else seconds_of(timeout)
        metadata = Received(headers)
        call = Call(
            route.path,
            metadata,
            None if remaining is None else time.monotonic() + remaining,
            peer=scope["client"],
            identity=self._identity(headers) if self._identify else "",
        )
        exchange = make(route, call, metadata, receive, send)
        self._live.add(exchange)
        if remaining is not None and remaining < 2 * _SWEEP_S:
            exchange.expire_in(remaining)
        if not self._sweep_due:
            self._sweep_due = True
            asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        return exchange

    def _sweep(self) -> None:
        now = time.monotonic()
        for exchange in tuple(self._live):
            exchange.look(now, _SWEEP_S)
        self._sweep_due = bool(self._live)
        if self._sweep_due:
            asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _identity(self, headers: dict[bytes, bytes]) -> str:
        told = headers.get(b"x-forwarded-client-cert", b"")
        identity = self._identities.get(told)
        if identity is None:
            if len(self._identities) >= _MAX_IDENTITIES:
                self._identities.clear()
            identity = self._identities[told] = _identity(told.decode(errors="replace"))
        return identity


class _Refused(Exchange):
    """A request that is no call of any method: answered, not read."""

    __slots__ = ()

    def __init__(self, scope: Event, headers: dict[bytes, bytes], send: Send) -> None:
        content_type = headers.get(b"content-type", b"")
        if scope["method"] == "POST" and _is_grpc(content_type):
            error = StatusError(grpc.StatusCode.UNIMPLEMENTED, f"no method {scope['path']}")
            answer_with(send, 200, [(b"content-type", b"application/grpc"), *status_headers(error)])
        else:
            answer_with(send, 415, [])


def _identity(told: str) -> str:
    """The common name of the caller's certificate, else its first alternative name.

    From the element that Envoy writes of a verified certificate, whose subject is as in RFC 2253:
    ``Hash=...;Subject="CN=edge-1,O=Tollmesh";URI=...;DNS=...``
    """
    found = re.search(r'(?:^|;)Subject="((?:[^"\\]|\\.)*)"', told)
    parts = [] if found is None else re.findall(r"(?:[^,+\\]|\\.)+", found[1])
    names = [part[3:] for part in parts if part.startswith("CN=")]
    if names:
        return _unescaped(names[-1])  # the certificate's first: RFC 2253 turns the order round
    rest = told if found is None else told[: found.start()] + told[found.end() :]
    alternative = re.search(r"(?:^|;)(?:URI|DNS)=([^;]+)", rest)
    return "" if alternative is None else unquote(alternative[1])


def _unescaped(text: str) -> str:
    r"""A value of RFC 2253 (section 2.4) as it was: ``\,`` and the bytes of UTF-8, ``\C3\A9``."""
    plain = re.sub(
        rb"\\(?:([0-9A-Fa-f]{2})|(.))",
        lambda found: bytes.fromhex(found[1].decode()) if found[1] else found[2],
        text.encode(),
    )
    return plain.decode(errors="replace")
