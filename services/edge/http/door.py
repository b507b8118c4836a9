"""The door over HTTP: leave for requests that nginx, Caddy and the like serve, and their reports.

``/door/authorize`` answers with the status that the reader should get (``forward_auth`` of Caddy
and Traefik pass it on); ``/door/auth-request`` with 204, 401 or 403 and the rest in headers, for
nginx's ``auth_request`` knows no other status and passes no body on. See docs/nginx.md.

Fronts pass on what readers sent besides: each path heeds only the names that its fronts set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from services.edge.door.captures import Captures
from services.edge.door.door import Door
from services.edge.door.log_lines import LineMalformedError
from services.edge.door.requests import GuestRequest
from services.edge.door.tickets import Ticket
from services.edge.errors import RateLimitedError
from services.edge.http.exchange import Exchange
from services.edge.http.problems import FrontUnknownError, Headers, Problem, problem
from services.rpc.errors import InvalidArgumentError, ServiceError, ShuttingDownError

MAX_REPORT_BYTES = 1024 * 1024
_NUMBER = re.compile(r"[0-9]{1,18}").fullmatch
_CLOSED_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{1,18})").fullmatch
_OURS = {b"content-type", b"content-length"}
_IN_NGINX, _IN_CADDY = "x-original-", "x-forwarded-"
"""What the headers are called by which a front tells of the reader's request."""


class DoorHandlers:
    """Handlers of the paths under ``/door``: for fronts alone.

    Args:
        door: admits.
        captures: takes reports.
    """

    def __init__(self, door: Door, captures: Captures) -> None:
        self._door = door
        self._captures = captures

    async def authorize(self, exchange: Exchange) -> None:
        """``GET /door/authorize``: 204 with a ticket, or the problem that the reader gets."""
        _check(exchange)
        await self._answer(exchange, await self._admitted(exchange, _IN_CADDY))

    async def auth_request(self, exchange: Exchange) -> None:
        """``GET /door/auth-request``: the same in the form that nginx passes on."""
        _check(exchange)
        try:
            ticket = await self._admitted(exchange, _IN_NGINX)
        except ServiceError as error:
            exchange.log_fields["refused"] = error.reason_name()
            refusal = problem(error, instance=exchange.request_id)
            status = 401 if refusal.status == 401 else 403
            await exchange.respond(status, _in_headers(refusal))
        else:
            await self._answer(exchange, ticket)

    async def report(self, exchange: Exchange) -> None:
        """``POST /door/captures``: log lines, one after the other; what became of each.

        Idempotent: a line that was taken before is answered ``repeated`` and does nothing.
        """
        _check(exchange)
        outcomes = []
        for line in (await _body(exchange)).splitlines():
            try:
                outcome = self._captures.take_line(line)
                outcomes.append(outcome.value if outcome is not None else "nothing")
            except LineMalformedError as error:
                outcomes.append(f"malformed: {error}")
        await exchange.respond_json(200, {"outcomes": outcomes})

    async def _admitted(self, exchange: Exchange, words: str) -> Ticket:
        request = _guest_request(exchange, words)
        exchange.log_fields["guest"] = f"{request.method} {request.path.partition('?')[0]}"
        try:
            ticket = await self._door.admit(exchange.client, request)
        except RateLimitedError:
            # Perhaps what ended is only in the log yet.
            await self._captures.catch_up()
            ticket = await self._door.admit(exchange.client, request)
        if exchange.connection.lost or self._captures.is_abandoned(request.request_key):
            # The reader left, and the front with it: nobody gets this ticket, or reports on it.
            self._door.capture(ticket.id, 0, final=True)
            raise ShuttingDownError("Nobody waits for the answer.")
        return ticket

    async def _answer(self, exchange: Exchange, ticket: Ticket) -> None:
        exchange.log_fields["account_id"] = ticket.account_id
        # All of them, always: for one that is not there, Caddy puts in its own name for it.
        headers: Headers = [
            (b"cache-control", b"no-store"),
            (b"tollmesh-ticket", ticket.id.encode("ascii")),
            (b"tollmesh-account", ticket.account_id.encode("ascii")),
            (b"tollmesh-cost", b"%d" % ticket.amount),
            (b"tollmesh-currency", ticket.currency.encode("ascii", "replace")),
            (b"tollmesh-available", b"%d" % ticket.available if ticket.id else b""),
        ]
        await exchange.respond(204, headers)


def _check(exchange: Exchange) -> None:
    """Raises FrontUnknownError unless a front asks."""
    if not exchange.is_from_front:
        raise FrontUnknownError


def _guest_request(exchange: Exchange, words: str) -> GuestRequest:
    """What the front says of the reader's request."""
    headers = exchange.headers
    path = headers.get(f"{words}uri", "")
    if not path.startswith("/"):
        raise InvalidArgumentError(f"{words.title()}URI is to hold the path.")
    method = headers.get(f"{words}method", "") or "GET"
    return GuestRequest(
        method=method,
        host=headers.get(f"{words}host", ""),
        path=path,
        request_key=headers.get("tollmesh-request", ""),
        estimate_bytes=_estimate(method, headers),
        meter=headers.get("tollmesh-meter", ""),
    )


def _estimate(method: str, headers: Mapping[str, str]) -> int | None:
    """The most that will be sent, as far as that is known."""
    stated = headers.get("tollmesh-estimate")
    if stated:
        if not _NUMBER(stated):
            raise InvalidArgumentError("Tollmesh-Estimate is not a number of bytes.")
        return int(stated)
    wanted = _CLOSED_RANGE(headers.get("range", ""))
    if wanted is None or method != "GET" or "if-range" in headers:
        return None  # with If-Range, all of it may be sent
    first, last = map(int, wanted.groups())
    return last - first + 1 if first <= last else None


def _in_headers(refusal: Problem) -> Headers:
    """A problem for a front that drops bodies: status and document in headers."""
    document = json.dumps(json.loads(refusal.body))  # ASCII alone
    headers = [field for field in refusal.headers if field[0] not in _OURS]
    return [
        *headers,
        (b"content-length", b"0"),
        (b"tollmesh-status", b"%d" % refusal.status),
        (b"tollmesh-problem", document.encode("ascii")),
    ]


async def _body(exchange: Exchange) -> bytes:
    data = bytearray()
    async for piece in exchange.body():
        data += piece
        if len(data) > MAX_REPORT_BYTES:
            raise InvalidArgumentError(f"At most {MAX_REPORT_BYTES} bytes of lines at once.")
    return bytes(data)
