"""The tickets that are to be reported: what stands behind each, and what becomes of it."""

from __future__ import annotations

import asyncio
import os
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from services.credits.errors import InsufficientCreditError
from services.edge.admission import Caller
from services.edge.background import ended, start
from services.edge.credit.holds import Usage
from services.edge.credit.payments import Payment, Payments
from services.edge.door.late import LateReports
from services.edge.door.register import Register
from services.edge.door.tickets import BY_LOG, Seal, Stub, Ticket
from services.process.logs import get_logger
from services.rpc.errors import ServiceError

_SWEEP_S = 0.25

Key = tuple[str, str]
"""A proxy, and its name for a request."""

log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Open:
    """A ticket that was given away, and what stands behind it."""

    ticket: Ticket
    caller: Caller
    payment: Payment
    covered: int
    """So many bytes are set aside for."""
    slot: int | None
    """In the register; None once that knows that the report is overdue."""
    key: Key | None
    reported: int = 0
    grows: bool = False
    """Whether more is being set aside, which takes the credit service."""
    ended: bool = False


class OpenTickets:
    """Gives tickets and settles them. Used from one event loop.

    Args:
        payments: sets more aside where an estimate was too low.
        seal: writes and reads tickets.
        register: what outlives this process.
        vacate: gives an account's place among requests in flight back.
        debit_estimate: how a ticket without a report is settled; else it is released.
    """

    def __init__(
        self,
        payments: Payments,
        seal: Seal,
        register: Register,
        vacate: Callable[[Caller], None],
        *,
        debit_estimate: bool,
    ) -> None:
        self._payments = payments
        self._seal = seal
        self._register = register
        self._vacate = vacate
        self._debit_estimate = debit_estimate
        self._process = urlsafe_b64encode(os.urandom(9)).decode()
        self._process_bytes = self._process.encode()
        self._number = 0
        self._open: dict[str, _Open] = {}
        self._keys: dict[Key, _Open] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sweep_due: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def known(self, key: Key, account_id: str) -> Ticket | None:
        """The open ticket of a request that is asked for again."""
        found = self._keys.get(key)
        if found is None or found.caller.account_id != account_id:
            return None
        return found.ticket

    def named(self, key: Key) -> str:
        """The open ticket of a request, whoever it is given to; empty when there is none."""
        found = self._keys.get(key)
        return found.ticket.id if found is not None else ""

    def give(
        self,
        caller: Caller,
        usage: Usage,
        payment: Payment,
        key: Key | None,
        reporter: str = BY_LOG,
    ) -> Ticket:
        """A ticket for what was set aside. Raises OverloadedError; all is given back then."""
        self._number += 1
        number = self._number
        try:
            slot = self._register.enter(
                self._process_bytes, number, payment.ends_at - time.monotonic()
            )
        except BaseException:
            payment.settle()
            raise
        text = self._seal.write(self._process, number, usage, payment.hold_id, reporter)
        ticket = Ticket(text, usage.account_id, payment)
        opened = _Open(ticket, caller, payment, usage.quantity, slot, key)
        self._open[text] = opened
        if key is not None and self._keys.setdefault(key, opened) is not opened:
            opened.key = None  # another account's: whoever names requests named two alike
        if self._sweep_due is None:
            self._sweep_due = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        return ticket

    def report(self, ticket_id: str, total: int, *, final: bool) -> bool:
        """Takes a report; False when the ticket is not open."""
        opened = self._open.get(ticket_id)
        if opened is None:
            return False
        if total > opened.reported:
            opened.reported = total
            if final and total <= opened.covered:
                self._strike_out(opened)
                opened.payment.deliver(total)
            else:
                self._deliver(opened)
        if final:
            self._close(opened)
        return True

    def read(self, ticket_id: str) -> Stub | None:
        """What a ticket says that is not open; None if this edge did not write it."""
        return self._seal.read(ticket_id)

    def is_overdue(self, stub: Stub) -> bool:
        """Whether its last report is still to come."""
        return self._register.is_overdue(stub.process, stub.number)

    def settle_late(self, stub: Stub, total: int, late: LateReports) -> None:
        """Settles an overdue ticket by its last report, in the background."""
        overdue = self._register.take(stub.process, stub.number)
        if overdue is not None:
            self._start(self._settled_late(stub, total, overdue.reported, overdue.slot, late))

    async def close(self, timeout_s: float) -> None:
        """Ends what goes on in the background; open tickets stay for the next process."""
        if self._sweep_due is not None:
            self._sweep_due.cancel()
        await ended(self._tasks, timeout_s)
        if self._open:
            log.warning("tickets_unreported", count=len(self._open))
        self._register.close()

    def _deliver(self, opened: _Open) -> None:
        more = opened.reported - opened.covered
        if more > 0 and not opened.grows:
            if opened.payment.extend(more):
                opened.covered = opened.reported
            else:
                opened.grows = True
                self._start(self._grow(opened))
        self._note(opened, min(opened.reported, opened.covered))

    def _note(self, opened: _Open, total: int) -> None:
        # A kill between the two must not leave a report that is paid and still looks overdue.
        if opened.slot is not None:
            self._register.note(opened.slot, total)
        opened.payment.deliver(total)

    async def _grow(self, opened: _Open) -> None:
        """Sets aside for what was sent beyond the estimate, as long as there is more of it."""
        payment = opened.payment
        try:
            while (more := opened.reported - opened.covered) > 0:
                await self._payments.prolong(payment, more)
                opened.covered += more
        except ServiceError as error:
            # It was sent already; with no credit left, what was set aside is all there is to take.
            log.error(  # noqa: TRY400 (the reason says it all)
                "delivery_unpaid",
                account_id=opened.caller.account_id,
                quantity=opened.reported - opened.covered,
                reason=error.reason_name(),
            )
            if not isinstance(error, InsufficientCreditError):
                opened.covered = opened.reported
        self._note(opened, min(opened.reported, opened.covered))
        opened.grows = False
        if opened.ended:
            self._settle(opened)

    def _close(self, opened: _Open) -> None:
        """The last report was here: nothing more is said under the ticket."""
        del self._open[opened.ticket.id]
        if opened.key is not None:
            del self._keys[opened.key]
        self._vacate(opened.caller)
        opened.ended = True
        if not opened.grows:
            self._settle(opened)

    def _settle(self, opened: _Open) -> None:
        self._strike_out(opened)
        opened.payment.settle()

    def _strike_out(self, opened: _Open) -> None:
        if opened.slot is not None:
            self._register.strike_out(opened.slot)
            opened.slot = None

    def _sweep(self) -> None:
        """Settles the tickets that have come to their end without a report."""
        now = time.monotonic()
        ended = [opened for opened in self._open.values() if opened.payment.ends_at <= now]
        for opened in ended:
            self._expire(opened)
        if ended:
            log.warning("tickets_unreported", count=len(ended))
        loop = asyncio.get_running_loop()
        self._sweep_due = loop.call_later(_SWEEP_S, self._sweep) if self._open else None

    def _expire(self, opened: _Open) -> None:
        if self._debit_estimate:
            opened.reported = max(opened.reported, opened.covered)
            self._deliver(opened)
        elif opened.slot is not None and not opened.grows:
            self._register.expire(opened.slot)
            opened.slot = None
        self._close(opened)

    async def _settled_late(
        self, stub: Stub, total: int, before: int, slot: int, late: LateReports
    ) -> None:
        await late.settle(stub, total, before)
        self._register.strike_out(slot)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = start(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
