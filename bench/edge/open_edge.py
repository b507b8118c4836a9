"""An edge that lets anybody have anything, as a process: what admission and payment cost is beside.

The same server, cache and answers; nobody is asked who he is, and nothing is paid.
"""

from __future__ import annotations

import math

from services.edge.__main__ import main
from services.edge.admission import Actions, Admission, Caller, Client
from services.edge.credit.holds import Usage
from services.edge.credit.payments import Payment, Payments

_ANYBODY = Caller("anybody", "none", 0)


class _Nothing:
    """A payment of nothing."""

    amount = 0
    currency = "credit"
    available = 0
    ends_at = math.inf
    hold_id = ""

    def extend(self, quantity: int) -> bool:  # noqa: ARG002 (any will do)
        """See Payment."""
        return True

    def deliver(self, total: int) -> None:
        """See Payment."""

    def settle(self) -> None:
        """See Payment."""


_NOTHING = _Nothing()


async def _authorize(_: Admission, client: Client, actions: Actions, resource: str) -> Caller:  # noqa: ARG001 (anybody, anything)
    return _ANYBODY


def _recalled(_: Admission, digest: bytes, action: int) -> Caller:  # noqa: ARG001 (anybody, anything)
    return _ANYBODY


def _take(_: Payments, usage: Usage, *, guest: bool = False) -> Payment:  # noqa: ARG001 (anything)
    return _NOTHING


if __name__ == "__main__":
    for owner, name, function in (
        (Admission, "authorize", _authorize),
        (Admission, "recalled", _recalled),
        (Payments, "take", _take),
    ):
        setattr(owner, name, function)
    main()
