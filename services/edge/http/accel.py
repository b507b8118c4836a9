"""An nginx of ours before this edge: it sends what is in the cache by itself, and says how much.

For an object that is whole on disk, the answer is a head and the name of the file
(X-Accel-Redirect); nginx sends the file, or a part of it. Everything else comes from here, through
nginx. Either way nginx delivers, so nothing is counted here: each answer has a ticket, and what is
paid is what nginx's log says was sent under it. See docs/nginx.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.edge.admission import Caller, Client, Place
from services.edge.cache.disk import DiskCache
from services.edge.delivery import Sources
from services.edge.door.captures import Captures
from services.edge.door.door import Door
from services.edge.door.reported import LentPayment, ReportedPayment, ReportedPayments
from services.edge.door.tickets import Ticket
from services.edge.downloads import Downloads, Part, usage_of
from services.edge.holds import Usage
from services.edge.http.exchange import Exchange
from services.edge.http.fronts import Fronts
from services.edge.http.problems import Headers
from services.edge.http.representation import age, cache_status, cost
from services.edge.objects import ObjectInfo, ObjectKey
from services.edge.payments import Payment, Payments
from services.rpc.errors import ShuttingDownError

# What nginx reads as we do: its parser takes more, and answers some of it otherwise.
_SIMPLE_RANGE = re.compile(r"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})").fullmatch
_NGINX_OWN = frozenset({b"accept-ranges", b"content-range"})
# Conditions that were seen to here; nginx would look again, at a file that has no ETag.
_SEEN_TO = ("if-match", "if-unmodified-since")


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
        self._door = door
        self._captures = captures
        self._payments = payments
        self._sources = sources
        self._disk = disk
        self._prefix = prefix.rstrip("/")
        self._region = region

    def delivers(self, exchange: Exchange) -> bool:
        """Whether an nginx of ours delivers the answer."""
        return "tollmesh-accel" in exchange.headers and self._fronts.sent(exchange)

    def reader(self, exchange: Exchange) -> Client:
        """Who asks, or whom nginx asks for."""
        return self._fronts.reader(exchange) if self.delivers(exchange) else exchange.client

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
                *(field for field in headers if field[0] not in _NGINX_OWN),
                cache_status(self._region, hit=True, detail="disk"),
                age(info),
                *cost(payment),
                (b"tollmesh-ticket", ticket.id.encode("ascii")),
                (b"x-accel-redirect", f"{self._prefix}/{file}".encode("ascii")),
                (b"content-length", b"0"),
            ],
        )
        return True

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


def ticket_header(payment: Payment | None) -> Headers:
    """What an answer that nginx delivers tells it besides."""
    if isinstance(payment, ReportedPayment):
        return [(b"tollmesh-ticket", payment.ticket.id.encode("ascii"))]
    return []
