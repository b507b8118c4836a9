"""The edge over HTTP: an ASGI application without a framework.

Owns what every request goes through: a place in line, ids, the route, errors as problems, and one
canonical log line. What each path does stands in ``downloads.py``, ``transfers.py`` and others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any
from uuid import uuid4

from services.edge.http.cors import Cors, is_preflight
from services.edge.http.exchange import Exchange
from services.edge.http.fronts import Fronts
from services.edge.http.hosts import check_host
from services.edge.http.intake import Intake
from services.edge.http.problems import PathNotFoundError
from services.edge.http.routes import ALL_METHODS, Routes
from services.process.logs import get_logger
from services.rpc.call import Call
from services.rpc.errors import InternalError, ServiceError
from services.rpc.trace import (
    REQUEST_ID_KEY,
    TRACE_PARENT_KEY,
    request_id_of,
    trace_id_of,
    trace_parent_of,
)

log = get_logger(__name__)

_HEALTH_PATHS = frozenset({"/healthz", "/readyz"})


class Application:
    """The ASGI application.

    Args:
        routes: what there is.
        cors: which web pages may read answers.
        intake: lets requests in.
        fronts: who may say that somebody else asks.
    """

    def __init__(self, routes: Routes, cors: Cors, intake: Intake, fronts: Fronts) -> None:
        self._routes = routes
        self._cors = cors
        self._intake = intake
        self._fronts = fronts

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Any,  # noqa: ANN401 (ASGI's own)
        send: Any,  # noqa: ANN401 (ASGI's own)
    ) -> None:
        """Serves one request."""
        started = time.perf_counter()
        exchange = Exchange(scope, receive, send)
        exchange.is_from_front = self._fronts.sent(exchange)
        exchange.cors = self._cors.fields(exchange.headers)
        call = _call(exchange)
        call.activate()
        self._intake.enter()
        reason = ""
        try:
            reason = await self._serve(exchange)
        except asyncio.CancelledError:
            reason = "CANCELLED"
            exchange.connection.abort()
        finally:
            self._intake.leave()
            self._record(exchange, call, started, reason)

    async def _serve(self, exchange: Exchange) -> str:
        """Runs the handler; the reason of the error that was answered, if one was."""
        try:
            check_host(exchange.fields, exchange.http_version)
            if await self._answered_for_all(exchange):
                return ""
            match = self._routes.find(exchange.path)
            handler = match.handler(exchange.method)
            if exchange.path not in _HEALTH_PATHS:
                self._intake.check()
            if handler is None:
                await exchange.respond(204, [_allow(match.methods)])
            else:
                await handler(exchange, *match.arguments)
        except ServiceError as error:
            return await _fail(exchange, _explained(error))
        except Exception as error:  # noqa: BLE001 (whatever it is, the client gets a problem)
            return await _fail(exchange, _incident(error))
        return ""

    async def _answered_for_all(self, exchange: Exchange) -> bool:
        """Answers what is asked of the server rather than of a path.

        A browser's question is answered at every path, so that the page sees our errors later.
        """
        asks = is_preflight(exchange.method, exchange.headers)
        if asks and self._routes.in_tree(exchange.path):
            return False  # what is there may decide about pages by itself
        if not asks and (exchange.method, exchange.path) != ("OPTIONS", "*"):
            return False
        try:
            methods = self._routes.find(exchange.path).methods
        except PathNotFoundError:
            methods = ALL_METHODS if exchange.path == "*" else ("GET", "HEAD", "OPTIONS")
        headers = self._cors.preflight(methods) if asks else []
        await exchange.respond(204, [_allow(methods), *headers])
        return True

    def _record(self, exchange: Exchange, call: Call, started: float, reason: str) -> None:
        fields: dict[str, object] = {
            "method": exchange.method,
            "path": exchange.path,
            "status": exchange.status,
            "sent_bytes": exchange.sent_bytes,
            "duration_ms": round((time.perf_counter() - started) * 1000, 3),
            "request_id": call.request_id,
            "trace_id": trace_id_of(call.trace_parent),
            "peer": call.peer,
            **call.log_fields,
            **exchange.log_fields,
        }
        if reason:
            fields["reason"] = reason
        if exchange.path in _HEALTH_PATHS:
            log.debug("request", **fields)
        else:
            self._intake.record(fields)


def _allow(methods: tuple[str, ...]) -> tuple[bytes, bytes]:
    return b"allow", ", ".join(methods).encode("ascii")


def _call(exchange: Exchange) -> Call:
    """The call that this request is, for the calls that it makes and for the log."""
    exchange.request_id = request_id_of(exchange.headers.get(REQUEST_ID_KEY))
    return Call(
        f"HTTP {exchange.method}",
        request_id=exchange.request_id,
        trace_parent=trace_parent_of(exchange.headers.get(TRACE_PARENT_KEY)),
        peer=exchange.peer,
    )


async def _fail(exchange: Exchange, error: ServiceError) -> str:
    if exchange.status == 0:
        await exchange.refuse(error)
    else:
        await exchange.break_off()
    return error.reason_name()


def _explained(error: ServiceError) -> ServiceError:
    """An error of ours always has an incident id: its detail is in a log."""
    if type(error) is InternalError and "incident_id" not in error.metadata:
        return _incident(error)
    return error


def _incident(error: Exception) -> ServiceError:
    incident_id = uuid4().hex[:16]
    log.error("request_failed", incident_id=incident_id, exc_info=error)
    return InternalError(metadata={"incident_id": incident_id})
