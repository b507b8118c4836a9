"""The front door for proxies that deliver by themselves.

Before it delivers, a proxy asks; a request that is admitted gets a ticket, and credit is set aside
for an estimate. While or after it delivers, the proxy reports under the ticket how many bytes it
sent, and that is what is paid. A ticket that nobody reports on by its end is settled by a policy:
*release* (nothing is paid beyond what was reported so far) or *debit_estimate*.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from enum import Enum
from typing import Any

from services.edge.admission import Admission, Caller, Client
from services.edge.background import start
from services.edge.credit.holds import Usage
from services.edge.credit.payments import Payment, Payments
from services.edge.door.late import LateReports
from services.edge.door.open_tickets import Key, OpenTickets
from services.edge.door.requests import GuestRequest, SizeOf, Terms
from services.edge.door.tickets import Ticket, free_ticket

_LONGEST_KEY = 512
_POLL_S = 0.05


class CaptureOutcome(Enum):
    """What became of a report."""

    NOTED = "noted"
    """More is to come."""
    SETTLED = "settled"
    """It was the last one."""
    REPEATED = "repeated"
    """The ticket was settled before; nothing was done."""
    LATE = "late"
    """The ticket had ended without its last report; what is still to be paid is paid now."""
    UNKNOWN = "unknown"
    """This edge gave no such ticket; nothing was done."""


class _Asking:
    """A request whose admission waits for other services."""

    def __init__(self, work: Coroutine[Any, Any, Ticket]) -> None:
        self.task = start(work)
        self.waiting = 0


class Door:
    """Admits for other proxies, and takes their reports. Used from one event loop.

    Args:
        admission: who may do what.
        payments: sets credit aside.
        tickets: those that are to be reported.
        late: settles what is reported too late.
        size_of: what is known of objects here; raises ObjectBannedError.
        estimate_bytes: what is set aside for a request of which nothing is known.
    """

    def __init__(
        self,
        admission: Admission,
        payments: Payments,
        tickets: OpenTickets,
        late: LateReports,
        *,
        size_of: SizeOf,
        estimate_bytes: int,
    ) -> None:
        self._admission = admission
        self._payments = payments
        self._tickets = tickets
        self._late = late
        self._size_of = size_of
        self._estimate_bytes = estimate_bytes
        self._asking: dict[tuple[str, ...], _Asking] = {}

    @property
    def open_tickets(self) -> int:
        """How many tickets are to be reported."""
        return len(self._tickets)

    def admit_now(self, client: Client, request: GuestRequest) -> Ticket | None:
        """As ``admit``, out of what is known and leased here; None when that takes other services.

        No I/O. Raises as ``admit`` does.
        """
        terms = Terms.of(request)
        caller = self._admission.recall(client, terms.actions)
        return None if caller is None else self._taken(caller, request, terms)

    async def admit(self, client: Client, request: GuestRequest) -> Ticket:
        """Authorises a request and sets credit aside for it.

        A request that its proxy names by a key is admitted once: asked again while its ticket is
        open, the answer is the same ticket. When nobody waits for the answer any more, everything
        is given back.

        Raises:
            RateLimitedError: too many requests of the account at once.
            InsufficientCreditError: the account has not enough for the estimate.
            OverloadedError: there is no room for more tickets.
            ObjectBannedError: the object is not to be delivered.
            ServiceError: the refusals of AuthService.Authorize; services that cannot be reached.
        """
        ticket = self.admit_now(client, request)
        if ticket is not None:
            return ticket
        if not request.request_key:
            return await self._admitted(client, request)
        name = (request.node, request.request_key, client.credential)
        asking = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = _Asking(self._admitted(client, request))
            asking.task.add_done_callback(lambda _: self._forget(name, asking))
        return await self._answer(name, asking)

    def capture(self, ticket_id: str, sent_bytes: int, *, final: bool) -> CaptureOutcome:
        """Takes a report: so many bytes were sent in all, under a ticket. No I/O.

        Reports may be repeated and overtake one another: the highest counts. ``final`` settles, in
        the background; a request that is not served after all ends with 0.
        """
        if not ticket_id:
            return CaptureOutcome.UNKNOWN
        if self._tickets.report(ticket_id, sent_bytes, final=final):
            return CaptureOutcome.SETTLED if final else CaptureOutcome.NOTED
        stub = self._tickets.read(ticket_id)
        if stub is None:
            return CaptureOutcome.UNKNOWN
        if not self._tickets.is_overdue(stub):
            return CaptureOutcome.REPEATED
        if final:
            self._tickets.settle_late(stub, sent_bytes, self._late)
        return CaptureOutcome.LATE

    def give(self, caller: Caller, usage: Usage, payment: Payment, request_key: str) -> Ticket:
        """A ticket for what was admitted and set aside elsewhere on this edge.

        It has the caller's place among its requests in flight from now on. Raises OverloadedError;
        the payment is settled then.
        """
        key = ("", request_key[:_LONGEST_KEY]) if request_key else None
        return self._tickets.give(caller, usage, payment, key)

    def ticket_of(self, node: str, request_key: str) -> str:
        """The open ticket of a request that its proxy named; empty when there is none."""
        return self._tickets.named((node, request_key[:_LONGEST_KEY]))

    async def wait_until_reported(self, timeout_s: float) -> None:
        """Waits until no ticket is open, or being asked for, but not longer than that."""
        end = time.monotonic() + timeout_s
        while (self._tickets or self._asking) and time.monotonic() < end:  # noqa: ASYNC110 (at the end, and short)
            await asyncio.sleep(_POLL_S)

    async def close(self, timeout_s: float) -> None:
        """Ends what goes on in the background. Open tickets stay for the next process."""
        await self._tickets.close(timeout_s)

    async def _answer(self, name: tuple[str, ...], asking: _Asking) -> Ticket:
        asking.waiting += 1
        try:
            return await asyncio.shield(asking.task)
        except asyncio.CancelledError:
            if asking.waiting == 1:
                self._forget(name, asking)
                asking.task.add_done_callback(self._give_back)
                asking.task.cancel()
            raise
        finally:
            asking.waiting -= 1

    def _forget(self, name: tuple[str, ...], asking: _Asking) -> None:
        """Who asks from now on begins anew."""
        if self._asking.get(name) is asking:
            del self._asking[name]

    def _give_back(self, task: asyncio.Task[Ticket]) -> None:
        """A ticket that was made when nobody waited for it any more."""
        if not task.cancelled() and task.exception() is None:
            self.capture(task.result().id, 0, final=True)

    async def _admitted(self, client: Client, request: GuestRequest) -> Ticket:
        terms = Terms.of(request)
        caller = await self._admission.authorize(client, terms.actions, terms.resource)
        ticket = self._taken(caller, request, terms)
        if ticket is not None:
            return ticket
        self._admission.occupy(caller)
        try:
            usage = terms.usage(caller.account_id, request, self._size_of, self._estimate_bytes)
            payment = await self._payments.reserve(usage, guest=True)
            return self._tickets.give(caller, usage, payment, _key(request), request.reporter)
        except BaseException:
            self._admission.vacate(caller)
            raise

    def _taken(self, caller: Caller, request: GuestRequest, terms: Terms) -> Ticket | None:
        """A ticket that was given before, or is free, or paid out of a lease."""
        if not terms.meter:
            return free_ticket(caller.account_id)
        key = _key(request)
        if key is not None:
            known = self._tickets.known(key, caller.account_id)
            if known is not None:
                return known
        self._admission.occupy(caller)
        try:
            usage = terms.usage(caller.account_id, request, self._size_of, self._estimate_bytes)
            payment = self._payments.take(usage, guest=True)
            if payment is not None:
                return self._tickets.give(caller, usage, payment, key, request.reporter)
        except BaseException:
            self._admission.vacate(caller)
            raise
        self._admission.vacate(caller)
        return None


def _key(request: GuestRequest) -> Key | None:
    key = request.request_key
    return (request.node, key[:_LONGEST_KEY]) if key else None
