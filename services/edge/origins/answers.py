"""Answers to clients: which fields they get, and stored responses as whole, part or 304."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from services.edge.http.exchange import Exchange
from services.edge.http.problems import Headers
from services.edge.http.ranges import ByteRange, byte_ranges
from services.edge.origins.delivery import Bill, deliver
from services.edge.origins.fields import Fields, value_of, without
from services.edge.origins.invalidation import same_origin_target
from services.edge.origins.requests import Asked
from services.edge.origins.stored import Stored
from services.edge.origins.validation import not_modified, range_applies

_BODILESS = frozenset({204, 304})
_OURS = frozenset({b"content-length", b"x-request-id", b"via", b"cache-status"})
_COOKIES = frozenset({b"set-cookie", b"set-cookie2"})
_CORS = frozenset(
    {
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
        b"access-control-expose-headers",
    }
)
# What servers of ours before the edge would do as they are told by, as if the edge had said it.
_FOR_FRONTS = (b"x-accel-", b"tollmesh-")
_FOR_CACHES = b"tollmesh-cache-control"
# What a 304 would say of a content that it does not have.
_OF_THE_CONTENT = frozenset({b"content-type", b"content-encoding", b"content-range"})
_REDIRECTS = frozenset({201, 301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Found:
    """A stored response, and how it came to be the answer."""

    stored: Stored
    how: str
    """As Cache-Status has it (RFC 9211)."""
    hit: bool = False
    """Whether the origin was not asked; the price goes by it."""
    validated: bool = False
    """Whether the origin has said for this request that this is the answer."""
    begun: Callable[[], None] | None = None
    """Called once its body is being read."""


class Answers:
    """Sends them.

    Args:
        region: how this edge is called in Cache-Status.
        pseudonym: how it is called in Via.
    """

    def __init__(self, region: str, pseudonym: str) -> None:
        self._region = region
        self._pseudonym = pseudonym

    def outgoing(
        self, exchange: Exchange, asked: Asked, status: int, fields: Fields, how: str
    ) -> Headers:
        """The fields of an answer, without Content-Length."""
        options = asked.origin.options
        dropped = _OURS if options.cookies else _OURS | _COOKIES
        # Which pages may read is said once: by the edge, if it says anything.
        said = {name for name, _ in exchange.cors if name != b"vary"}
        headers = without(fields, dropped | (_CORS if said else frozenset()))
        headers = [
            field
            for field in headers
            if not field[0].startswith(_FOR_FRONTS) or field[0] == _FOR_CACHES
        ]
        if options.rewrite_locations and status in _REDIRECTS:
            headers = [self._relocated(asked, field) for field in headers]
        steps = [value_of(fields, b"via"), f"1.1 {self._pseudonym}"]
        headers.append((b"via", ", ".join(step for step in steps if step).encode("latin-1")))
        tellers = [value_of(fields, b"cache-status"), f'"{self._region}"; {how}']
        joined = ", ".join(teller for teller in tellers if teller)
        headers.append((b"cache-status", joined.encode("latin-1")))
        return headers

    def _relocated(self, asked: Asked, field: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        """A Location that stays within the origin, as the client sees it."""
        name, value = field
        if name != b"location" or not value:
            return field
        origin = asked.origin
        target = same_origin_target(asked.url, value.decode("latin-1"))
        if target is None or not target.startswith(f"{origin.prefix}/"):
            return field
        return name, f"/origins/{origin.name}{target[len(origin.prefix) :]}".encode("latin-1")

    async def send_stored(self, exchange: Exchange, asked: Asked, found: Found, bill: Bill) -> None:
        """Answers with a stored response, or with one that is being stored.

        Raises TooLateError when its beginning is gone, and nothing was sent then.
        """
        stored = found.stored
        fields, how = _shown(found), found.how
        if found.hit:
            how = f"{how}; ttl={int(stored.clock(time.time()).fresh_for)}"
            exchange.log_fields["cache"] = "hit"
        is_get = exchange.method in {"GET", "HEAD"}
        if is_get and stored.status == 200 and not_modified(exchange.fields, stored.fields):
            headers = self.outgoing(exchange, asked, 304, without(fields, _OF_THE_CONTENT), how)
            await exchange.start(304, headers, dated=True)
            await exchange.send(b"")
            return
        if stored.length is None and exchange.http_version == "1.0":
            stored.length = await stored.body.whole()  # HTTP/1.0 knows no chunks
        part = _part(exchange, stored)
        status = 206 if part else stored.status
        headers = self.outgoing(exchange, asked, status, fields, how)
        length = part.length if part else stored.length
        if part is not None and stored.length is not None:
            headers.append((b"content-range", part.content_range(stored.length)))
        if length is not None and status not in _BODILESS:
            headers.append((b"content-length", b"%d" % length))
        if exchange.method == "HEAD" or status in _BODILESS:
            await exchange.start(status, headers, dated=True)
            await exchange.send(b"")
            return
        spare = asked.origin.options.estimate_bytes
        reader = stored.body.join(part.first if part else 0)
        if found.begun is not None:
            found.begun()
        try:
            await bill.cover(spare if length is None else length, hit=found.hit)
            await exchange.start(status, [*headers, *bill.headers()], dated=True)
            pieces = stored.body.pieces(reader, length if part else None)
            await deliver(exchange, pieces, length=length, bill=bill, spare=spare, hit=found.hit)
        finally:
            stored.body.leave(reader)


def _shown(found: Found) -> Fields:
    """The fields of a stored response, with the Age that is right for this answer."""
    now, stored = time.time(), found.stored
    if not found.validated:
        return stored.shown(now)
    age = int(stored.clock(now).age)
    if not age and value_of(stored.fields, b"age") is None:
        return stored.fields  # the origin has made it, or vouched for it, just now
    return [*without(stored.fields, {b"age"}), (b"age", b"%d" % age)]


def _part(exchange: Exchange, stored: Stored) -> ByteRange | None:
    """The part that is asked for; several at once get the whole, as RFC 9110 allows.

    Raises RangeNotSatisfiableError.
    """
    asked_for = exchange.headers.get("range")
    if not asked_for or exchange.method != "GET" or stored.status != 200 or stored.length is None:
        return None
    if not range_applies(exchange.headers.get("if-range"), stored.fields):
        return None
    ranges = byte_ranges(asked_for, stored.length)
    return ranges[0] if len(ranges) == 1 else None
