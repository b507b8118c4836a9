"""How a delivery is paid for: what was set aside before it, and what was sent of it.

Whoever delivers asks for a payment for all that it may send (``take`` where nothing may wait, else
``reserve``), says how much left while it leaves, and settles at the end, whatever the end was.
"""

from __future__ import annotations

from typing import Protocol

from services.credits.errors import InsufficientCreditError
from services.edge.credit.holds import Hold, Holds, Usage
from services.edge.credit.lease_books import LeasePayment
from services.edge.credit.leases import Leases
from services.rpc.errors import DependencyUnavailableError


class Payment(Protocol):
    """Credit set aside for one delivery. Ends with ``settle``."""

    @property
    def amount(self) -> int:
        """What it costs, at most, if all of it is delivered."""

    @property
    def currency(self) -> str:
        """Of the amount."""

    @property
    def available(self) -> int:
        """What the account can spend besides, as far as is known here."""

    @property
    def ends_at(self) -> float:
        """When the delivery must have ended, on the clock of ``time.monotonic``.

        It moves: later when a lease is prolonged, and after ``extend`` or ``Payments.prolong``. So
        look again when it has come.
        """

    @property
    def hold_id(self) -> str:
        """The hold that pays; empty when it is paid out of a lease."""

    def extend(self, quantity: int) -> bool:
        """Sets aside for so many bytes besides; False if that cannot be done here. No I/O.

        For answers of unknown length, as they grow.
        """

    def deliver(self, total: int) -> None:
        """Notes that ``total`` bytes were delivered so far: what will be paid for. No I/O.

        Less than before, if it turns out that not all of it arrived.
        """

    def settle(self) -> None:
        """Pays for what was delivered, in the background, and gives the rest back. Once."""


class Payments:
    """Makes payments.

    Args:
        holds: sets credit aside by the credit service, for one delivery.
        leases: credit of accounts that is here already, if this edge has any.
    """

    def __init__(self, holds: Holds, leases: Leases | None = None) -> None:
        self._holds = holds
        self._leases = leases

    def take(self, usage: Usage, *, guest: bool = False) -> Payment | None:
        """A payment out of what this edge has leased; None when that does not cover it. No I/O.

        With ``guest``, somebody else delivers and reports what was sent.
        """
        return None if self._leases is None else self._leases.take(usage, guest=guest)

    def covers_some(self, account_id: str, meter: str) -> bool:
        """Whether this edge has credit of the account: it will most likely not have to ask."""
        return self._leases is not None and self._leases.spendable(account_id, meter) > 0

    async def reserve(self, usage: Usage, *, guest: bool = False) -> Payment:
        """A payment for ``usage``, which is also the most that this edge can deliver.

        With ``guest`` as ``take``.

        Raises InsufficientCreditError, and ServiceError when the credit service cannot be reached
        (nothing was delivered).
        """
        leases = self._leases
        try:
            hold = await self._holds.reserve(usage, delivery=True, guest=guest)
        except InsufficientCreditError:
            # A lease that could not be closed was filled up instead.
            payment = self.take(usage, guest=guest)
            if payment is None:
                raise
            return payment
        if leases is not None:
            leases.reserved(usage, hold.reserved)
        return HoldPayment(hold, self._holds, leases)

    async def prolong(self, payment: Payment, quantity: int) -> None:
        """Sets aside for so many bytes besides: as ``Payment.extend``, and waits where that must.

        Raises InsufficientCreditError, and ServiceError when the credit service cannot be reached;
        the payment is as it was then, and is still to be settled.
        """
        if payment.extend(quantity):
            return
        if isinstance(payment, LeasePayment):
            await self._refill(payment, quantity)
        elif isinstance(payment, HoldPayment):
            await payment.grow(quantity)

    async def drain(self, timeout_s: float) -> None:
        """Settles what is under way; what does not end in time stays in the journals."""
        if self._leases is not None:
            await self._leases.drain(timeout_s)
        await self._holds.drain(timeout_s)

    async def _refill(self, payment: LeasePayment, quantity: int) -> None:
        if self._leases is None or not await self._leases.refill(payment, quantity):
            raise DependencyUnavailableError
        if not payment.extend(quantity):
            account_id = payment.lease.slot.terms.account_id
            needed, available = payment.price_of(quantity), payment.available
            raise self._holds.refused(
                InsufficientCreditError.of(
                    account_id, payment.currency, needed=needed, available=available
                )
            )


class HoldPayment:
    """A payment by a hold of its own."""

    __slots__ = ("_hold", "_holds", "_is_settled", "_leases")

    def __init__(self, hold: Hold, holds: Holds, leases: Leases | None) -> None:
        self._hold = hold
        self._holds = holds
        self._leases = leases
        self._is_settled = False

    @property
    def amount(self) -> int:
        """See Payment."""
        return self._hold.reserved.amount

    @property
    def currency(self) -> str:
        """See Payment."""
        return self._hold.reserved.currency

    @property
    def available(self) -> int:
        """See Payment."""
        entry, available = self._hold.entry, self._hold.reserved.available
        if self._leases is None:
            return available
        return available + self._leases.spendable(entry.account_id, entry.meter)

    @property
    def ends_at(self) -> float:
        """See Payment."""
        return self._hold.ends_at

    @property
    def hold_id(self) -> str:
        """See Payment."""
        return self._hold.reserved.hold_id

    def extend(self, quantity: int) -> bool:  # noqa: ARG002 (only the credit service can)
        """See Payment."""
        return False

    async def grow(self, quantity: int) -> None:
        """See Payments.prolong."""
        await self._holds.extend(self._hold, quantity)

    def deliver(self, total: int) -> None:
        """See Payment."""
        if not self._is_settled:
            self._hold.deliver(total)

    def settle(self) -> None:
        """See Payment."""
        if not self._is_settled:
            self._is_settled = True
            self._holds.settle(self._hold)
