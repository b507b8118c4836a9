"""An nginx of ours before this edge: it sends what is in the cache by itself, and says how much.

For an object that is whole on disk, the answer is a head and the name of the file
(X-Accel-Redirect); nginx sends the file, or a part of it. Everything else comes from here, through
nginx. Either way nginx delivers, so nothing is counted here: each answer has a ticket, and what is
paid is what nginx's log says was sent under it. See docs/nginx.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from services.edge.admission import Admission, Caller, Place
from services.edge.cache.disk import DiskCache
from services.edge.credit.holds import Usage
from services.edge.credit.payments import Payment, Payments
from services.edge.delivery import Sources
from services.edge.door.captures import Captures
from services.edge.door.door import Door
from services.edge.door.reported import LentPayment, ReportedPayment, ReportedPayments
from services.edge.door.tickets import Ticket
from services.edge.downloads import Downloads, Part, usage_of
from services.edge.http.connection import Connection
from services.edge.http.exchange import Exchange
from services.edge.http.fronts import Fronts
from services.edge.http.problems import Headers
from services.edge.http.representation import Field, age, cache_status, cost
from services.edge.objects import ObjectInfo, ObjectKey
from services.rpc.errors import OverloadedError, ShuttingDownError

_NAME = b"\r\nTollmesh-Request: "
# What nginx reads as we do: its parser takes more, and answers some of it otherwise.
_SIMPLE_RANGE = re.compile(r"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})").fullmatch
_NGINX_OWN = frozenset({b"accept-ranges", b"content-length", b"content-range"})
# Conditions that were seen to here; nginx would look again, at a file that has no ETag.
_SEEN_TO = ("if-match", "if-unmodified-since")


class Handed(NamedTuple):
    """A file that nginx is to send."""

    payment: Payment
    ticket_id: str
    location: str


@dataclass(frozen=True, slots=True)
class FrontOrder:
    """A download that nginx delivers."""

    exchange: Exchange
    place: Place
    caller: Caller
    key: ObjectKey
    info: ObjectInfo


class Accelerator:
    """Answers for an nginx that delivers.

    Args:
        fronts: who it is.
        admission: counts requests in flight.
        door: gives tickets.
        captures: knows which requests nobody waits for any more.
        payments: sets credit aside.
        sources: for what nginx cannot send by itself.
        disk: for what it can.
        prefix: the path at which nginx has the cache's files; empty: it has none.
        region: how this edge is called in Cache-Status.
    """

    def __init__(
        self,
        fronts: Fronts,
        admission: Admission,
        door: Door,
        captures: Captures,
        payments: Payments,
        sources: Sources,
        disk: DiskCache,
        *,
        prefix: str,
        region: str,
    ) -> None:
        self._fronts = fronts
        self._admission = admission
        self._door = door
        self._captures = captures
        self._payments = payments
        self._sources = sources
        self._disk = disk
        self._prefix = prefix.rstrip("/")
        self._region = region

    def delivers(self, exchange: Exchange) -> bool:
        """Whether an nginx of ours delivers the answer."""
        return exchange.is_from_front and "tollmesh-accel" in exchange.headers

    def asked(self, fields: Mapping[bytes, bytes]) -> bool:
        """Whether a request's header fields say that nginx delivers, and can send files."""
        return fields.get(b"tollmesh-accel") == b"redirect" and self._fronts.know(
            fields.get(b"tollmesh-front", b"")
        )

    async def make_place(self, exchange: Exchange, caller: Caller) -> None:
        """Sees to it that what nginx has delivered takes no place among requests in flight."""
        if not self._admission.has_place(caller) and self.delivers(exchange):
            await self._captures.catch_up()

    async def hand_over(self, order: FrontOrder, parts: tuple[Part, ...], headers: Headers) -> bool:
        """Answers with the name of the file; False when nginx cannot send what is asked for.

        Raises as Downloads.open does.
        """
        exchange, info = order.exchange, order.info
        asked = exchange.headers["tollmesh-accel"]
        if asked != "redirect":
            await self._missing(asked.removeprefix("missing "), info)
            return False
        file = self._file(exchange, info, parts, headers)
        if file is None:
            return False
        payment, ticket = await self._lent(order, parts[0].length)
        exchange.log_fields["cache"] = "hit"
        await exchange.respond(
            200,
            [
                *without_body(headers),
                cache_status(self._region, hit=True, detail="disk"),
                age(info),
                *cost(payment),
                (b"tollmesh-ticket", ticket.id.encode("ascii")),
                (b"x-accel-redirect", f"{self._prefix}/{file}".encode("ascii")),
            ],
        )
        return True

    def hand_over_now(
        self,
        caller: Caller,
        info: ObjectInfo,
        usage: Usage,
        connection: Connection,
    ) -> Handed | None:
        """As ``hand_over`` of a whole object, out of a lease; None when that cannot be. No I/O.

        Args:
            caller: who asks; there is a place for it.
            info: the object.
            usage: what it costs.
            connection: nginx's.
        """
        name = connection.request_name
        file = self._disk.file_of(info.cid) if self._prefix else None
        payment = self._payments.take(usage, guest=True) if file else None
        if payment is None:
            return None
        loans = self._disk.loans
        loans.lend(info.cid)
        lent = LentPayment(payment, loans, info.cid)
        self._admission.occupy(caller)
        try:
            ticket = self._door.give(caller, usage, lent, name)
        except OverloadedError:
            self._admission.vacate(caller)
            return None
        if connection.lost or self._captures.is_abandoned(name):
            self._door.capture(ticket.id, 0, final=True)
            return None
        return Handed(payment, ticket.id, f"{self._prefix}/{file}")

    def downloads(self, order: FrontOrder) -> Downloads:
        """Opens downloads whose bytes go through nginx."""

        def give(usage: Usage, payment: Payment) -> Ticket:
            return self._ticket(order, usage, payment)

        return Downloads(ReportedPayments(self._payments, self._door, give), self._sources)

    async def _missing(self, ticket_id: str, info: ObjectInfo) -> None:
        """The file that was named is not there: nothing was sent of it."""
        self._door.capture(ticket_id, 0, final=True)
        await self._disk.check(info.cid)

    def _file(
        self, exchange: Exchange, info: ObjectInfo, parts: tuple[Part, ...], headers: Headers
    ) -> str | None:
        """The file that nginx is to send, if it answers as we would."""
        asked = exchange.headers
        if not self._prefix or len(parts) != 1 or any(name in asked for name in _SEEN_TO):
            return None
        wanted = asked.get("range")
        if wanted is not None:
            is_heeded = any(name == b"content-range" for name, _ in headers)
            if not (is_heeded and _SIMPLE_RANGE(wanted) and "if-range" not in asked):
                return None
        return self._disk.file_of(info.cid)

    async def _lent(self, order: FrontOrder, length: int) -> tuple[Payment, Ticket]:
        """Sets credit aside for a file that stays where it is until it is paid."""
        loans, cid = self._disk.loans, order.info.cid
        usage = usage_of(order.caller, order.key, length, hit=True)
        loans.lend(cid)
        try:
            payment = self._payments.take(usage, guest=True)
            if payment is None:
                payment = await self._payments.reserve(usage, guest=True)
        except BaseException:
            loans.give_back(cid)
            raise
        lent = LentPayment(payment, loans, cid)
        return lent, self._ticket(order, usage, lent)

    def _ticket(self, order: FrontOrder, usage: Usage, payment: Payment) -> Ticket:
        """A ticket, which has the caller's place among its requests from now on."""
        name = order.exchange.headers.get("tollmesh-request", "")
        ticket = self._door.give(order.caller, usage, payment, name)
        order.place.hand_over()
        if order.exchange.connection.lost or self._captures.is_abandoned(name):
            self._door.capture(ticket.id, 0, final=True)
            raise ShuttingDownError("Nobody waits for the answer.")
        return ticket


def without_name(data: bytes) -> tuple[bytes, str]:
    """What was received, without what an nginx before us calls the request; and that.

    It is the one header field of nginx's that is new each time.
    """
    at = data.find(_NAME)
    if at < 0:
        return data, ""
    start, end = at + len(_NAME), data.find(b"\r", at + len(_NAME))
    if end < 0:
        return data, ""
    return data[:start] + data[end:], data[start:end].decode("latin-1")


def without_body(fields: Iterable[Field]) -> tuple[Field, ...]:
    """The fields of an answer whose body nginx has, and whose length and ranges it tells."""
    kept = (field for field in fields if field[0] not in _NGINX_OWN)
    return (*kept, (b"content-length", b"0"))


def ticket_header(payment: Payment | None) -> Headers:
    """What an answer that nginx delivers tells it besides."""
    if isinstance(payment, ReportedPayment):
        return [(b"tollmesh-ticket", payment.ticket.id.encode("ascii"))]
    return []
