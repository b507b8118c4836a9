"""Payments for what another proxy delivers of ours: it reports under a ticket what it sent."""

from __future__ import annotations

from collections.abc import Callable

from services.edge.cache.loans import Loans
from services.edge.credit.holds import Usage
from services.edge.credit.payments import Payment, Payments
from services.edge.door.door import Door
from services.edge.door.tickets import Ticket

Give = Callable[[Usage, Payment], Ticket]
"""Gives a ticket for what was set aside."""


class _Around:
    """A payment as it is."""

    __slots__ = ("_payment",)

    def __init__(self, payment: Payment) -> None:
        self._payment = payment

    @property
    def amount(self) -> int:
        """See Payment."""
        return self._payment.amount

    @property
    def currency(self) -> str:
        """See Payment."""
        return self._payment.currency

    @property
    def available(self) -> int:
        """See Payment."""
        return self._payment.available

    @property
    def ends_at(self) -> float:
        """See Payment."""
        return self._payment.ends_at

    @property
    def hold_id(self) -> str:
        """See Payment."""
        return self._payment.hold_id

    def extend(self, quantity: int) -> bool:
        """See Payment."""
        return self._payment.extend(quantity)

    def deliver(self, total: int) -> None:
        """See Payment."""
        self._payment.deliver(total)

    def settle(self) -> None:
        """See Payment."""
        self._payment.settle()


class LentPayment(_Around):
    """One for a file that is lent until it is settled: by the report, or when none has come."""

    __slots__ = ("_cid", "_loans")

    def __init__(self, payment: Payment, loans: Loans, cid: str) -> None:
        self._payment = payment
        self._loans = loans
        self._cid = cid

    def settle(self) -> None:
        """See Payment."""
        self._loans.give_back(self._cid)
        self._payment.settle()


class ReportedPayment(_Around):
    """One for bytes that we hand to a proxy. Settled by its report, once an answer began."""

    __slots__ = ("_began", "_door", "ticket")

    def __init__(self, payment: Payment, ticket: Ticket, door: Door) -> None:
        super().__init__(payment)
        self.ticket = ticket
        self._door = door
        self._began = False

    def deliver(self, total: int) -> None:  # noqa: ARG002 (what the reader has, the proxy knows)
        """Notes that the proxy has the head of the answer, and so the ticket."""
        self._began = True

    def settle(self) -> None:
        """Nobody will report on an answer that did not begin."""
        if not self._began:
            self._door.capture(self.ticket.id, 0, final=True)


class ReportedPayments(Payments):
    """Makes them.

    Args:
        payments: sets credit aside.
        door: takes the reports.
        give: gives a ticket.
    """

    def __init__(self, payments: Payments, door: Door, give: Give) -> None:
        self._payments = payments
        self._door = door
        self._give = give

    def take(self, usage: Usage, *, guest: bool = True) -> Payment | None:
        """See Payments."""
        payment = self._payments.take(usage, guest=guest)
        return None if payment is None else self._reported(usage, payment)

    async def reserve(self, usage: Usage, *, guest: bool = True) -> Payment:
        """See Payments."""
        return self._reported(usage, await self._payments.reserve(usage, guest=guest))

    def _reported(self, usage: Usage, payment: Payment) -> Payment:
        return ReportedPayment(payment, self._give(usage, payment), self._door)
