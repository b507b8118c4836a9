"""How a delivery is paid for: what was set aside before it, and what was sent of it.

Whoever delivers asks for a payment for all that it may send (``take`` where nothing may wait, else
``reserve``), says how much left while it leaves, and settles at the end, whatever the end was.
"""

from __future__ import annotations

from typing import Protocol

from services.edge.holds import Hold, Holds, Usage


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

        It may be later after ``extend`` or ``Payments.prolong``.
        """

    @property
    def hold_id(self) -> str:
        """The hold that pays; empty when it is paid out of a lease."""

    def extend(self, quantity: int) -> bool:
        """Sets aside for so many bytes besides; False if that cannot be done here. No I/O.

        For answers of unknown length, as they grow.
        """

    def deliver(self, total: int) -> None:
        """Notes that ``total`` bytes were delivered so far: what will be paid for. No I/O."""

    def settle(self) -> None:
        """Pays for what was delivered, in the background, and gives the rest back. Once."""


class Payments:
    """Makes payments.

    Args:
        holds: sets credit aside by the credit service.
    """

    def __init__(self, holds: Holds) -> None:
        self._holds = holds

    def take(
        self,
        usage: Usage,  # noqa: ARG002 (nothing is leased yet)
        *,
        guest: bool = False,  # noqa: ARG002 (nothing is leased yet)
    ) -> Payment | None:
        """A payment out of what this edge has leased; None when that does not cover it. No I/O."""
        return None

    async def reserve(
        self,
        usage: Usage,
        *,
        guest: bool = False,  # noqa: ARG002 (every hold is released when it expires)
    ) -> Payment:
        """A payment for ``usage``, which is also the most that this edge can deliver.

        With ``guest``, somebody else delivers and reports what was sent.

        Raises InsufficientCreditError, and ServiceError when the credit service cannot be reached
        (nothing was delivered).
        """
        return HoldPayment(await self._holds.reserve(usage), self._holds)

    async def prolong(self, payment: Payment, quantity: int) -> None:
        """Sets aside for so many bytes besides: as ``Payment.extend``, and waits where that must.

        Raises InsufficientCreditError, and ServiceError when the credit service cannot be reached;
        the payment is as it was then, and is still to be settled.
        """
        if not payment.extend(quantity) and isinstance(payment, HoldPayment):
            await payment.grow(quantity)


class HoldPayment:
    """A payment by a hold of its own."""

    __slots__ = ("_hold", "_holds")

    def __init__(self, hold: Hold, holds: Holds) -> None:
        self._hold = hold
        self._holds = holds

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
        return self._hold.reserved.available

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
        self._hold.deliver(total)

    def settle(self) -> None:
        """See Payment."""
        self._holds.settle(self._hold)
