"""Lines of other servers' access logs: which ticket, and how many bytes were sent on it.

Two formats, both one JSON object a line: what ``deploy/nginx/log.conf`` writes (``ticket`` and
``sent_bytes``; an entry of ``/door/captures`` may be the same), and Caddy's access log (``size``
beside ``resp_headers``, in which the ticket stands as Tollmesh-Ticket).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

TICKET_HEADER = "Tollmesh-Ticket"


class LineMalformedError(ValueError):
    """A line that is not of a format known here."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a line tells."""

    ticket: str
    """Its text, as the other server got it."""
    sent_bytes: int
    """Of the answer's body, as that server counts them."""


def delivered(line: bytes | str) -> Delivered | None:
    """What a line tells; None when it is about a request without a ticket.

    Raises LineMalformedError.
    """
    try:
        fields = json.loads(line)
    except ValueError as error:  # UnicodeDecodeError is one
        raise LineMalformedError("not JSON") from error
    if not isinstance(fields, dict):
        raise LineMalformedError("not a JSON object")
    if "ticket" in fields:
        ticket, sent_bytes = fields["ticket"], fields.get("sent_bytes")
    else:
        ticket, sent_bytes = _header(fields), fields.get("size")
    if not ticket:
        return None
    if not isinstance(ticket, str):
        raise LineMalformedError("the ticket is not a text")
    if not isinstance(sent_bytes, int) or isinstance(sent_bytes, bool) or sent_bytes < 0:
        raise LineMalformedError("no count of bytes sent")
    return Delivered(ticket, sent_bytes)


def _header(fields: dict[str, object]) -> object:
    """The ticket among the answer's headers, as Caddy logs them: lists of values by name."""
    headers = fields.get("resp_headers")
    values = headers.get(TICKET_HEADER) if isinstance(headers, dict) else None
    return values[0] if isinstance(values, list) and values else None
