"""Lines of other servers' access logs: which ticket, and how many bytes were sent on it.

Two formats, both one JSON object a line: what ``deploy/nginx/log.conf`` writes (an entry of
``/door/captures`` may be the same), and Caddy's access log, in which the ticket stands among the
answer's headers. Only answers with a status of success are paid: the error page of a server that
could not deliver is nobody's purchase.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import orjson

from services.edge.door.tickets import meter_of

TICKET, REQUEST = "Tollmesh-Ticket", "Tollmesh-Request"
"""Headers by which Caddy's log tells a ticket, and its name for a request."""

UPLOAD = "upload"
_OF_UPLOAD = f"~{UPLOAD}~"
"""Stands in the ticket of every upload."""

_NUMBER = re.compile(r"0*[0-9]{1,20}").fullmatch


class LineMalformedError(ValueError):
    """A line that is not of a format known here."""


class Delivered(NamedTuple):
    """What a line tells."""

    ticket: str
    """Its text, as the other server got it; empty when it got none, or no answer."""
    request: str
    """The other server's name for the request, as it told it to the door."""
    total_bytes: int
    """What is to be paid: of the answer's body, or received of an upload."""


def delivered(line: bytes | str) -> Delivered:
    """What a line tells. Raises LineMalformedError."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise LineMalformedError("not JSON") from error
    if not isinstance(fields, dict):
        raise LineMalformedError("not a JSON object")
    if "resp_headers" in fields:
        fields = _of_caddy(fields)
    ticket, request = fields.get("ticket", ""), fields.get("request", "")
    if not isinstance(ticket, str) or not isinstance(request, str):
        raise LineMalformedError("the ticket or the request is not a text")
    status = _number(fields.get("status", 200), "the status is not a number")
    is_upload = _OF_UPLOAD in ticket and meter_of(ticket) == UPLOAD
    count = fields.get("received_bytes" if is_upload else "sent_bytes", 0)
    total = _number(count, "no count of bytes")
    return Delivered(ticket, request, total if 200 <= status < 300 else 0)


def _of_caddy(fields: dict[str, Any]) -> dict[str, Any]:
    """The same in the words of our own format (Caddy's structured access log)."""
    return {
        "ticket": _first(fields["resp_headers"], TICKET),
        "request": _first(fields["resp_headers"], REQUEST),
        "status": fields.get("status"),
        "sent_bytes": fields.get("size"),
        "received_bytes": _length(fields.get("request")),
    }


def _length(request: object) -> object:
    headers = request.get("headers") if isinstance(request, dict) else None
    return _first(headers, "Content-Length") or 0


def _number(value: object, what: str) -> int:
    """A number, or a text of digits: what a client wrote may begin with noughts, thousands of them.

    Neither JSON nor ``int`` takes that. Raises LineMalformedError.
    """
    if isinstance(value, str) and _NUMBER(value):
        return int(value[-20:])
    if type(value) is not int or value < 0:
        raise LineMalformedError(what)
    return value


def _first(headers: object, name: str) -> object:
    """The value of a header in Caddy's form: lists of values by name."""
    values = headers.get(name) if isinstance(headers, dict) else None
    return values[0] if isinstance(values, list) and values else ""
