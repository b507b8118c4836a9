"""Requests that Envoy may give up while it asks: found again when its log has no ticket of them.

A reader that goes away in the very moment of the Check leaves a ticket behind that Envoy never saw.
Its access log still has the request, under the name that its configuration gave it.
"""

from __future__ import annotations

HEADER = "tollmesh-stream"
"""Set by Envoy, whatever the reader sent under this name; see deploy/envoy/envoy.yaml."""

_MOST = 65_536


class Streams:
    """The tickets of requests by those names, as long as no report has come. Bounded."""

    def __init__(self) -> None:
        self._tickets: dict[str, str] = {}

    def note(self, name: str, ticket_id: str) -> None:
        """A request was given a ticket."""
        tickets = self._tickets
        tickets[name] = ticket_id
        if len(tickets) > _MOST:  # of the oldest there will be no report
            del tickets[next(iter(tickets))]

    def take(self, name: str) -> str:
        """The ticket of a request that is over; empty if there is none. Once."""
        return self._tickets.pop(name, "")
