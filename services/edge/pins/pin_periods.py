"""How pins are paid: ahead, by the period, each period once.

A period that is to be paid is recorded before it is debited, and the request id of its debit is
made from the edge, the account, the object and the period's start. So a crash at any point leaves
either nothing, or a period that is asked for again under the same id and debited once.

The first period starts when the object is pinned, each further one where the one before ends,
whatever the clock does: a clock that jumps can have a period paid early, never twice. When an edge
was down for longer than the time of grace, the next period starts anew, and what it slept through
costs nothing.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass

from services.edge.cache.pin_records import Due, Pin, PinRecords
from services.edge.credit.holds import Holds, Usage
from services.edge.credit.ledger import Ledger

METER = "pin"

_HOUR_S = 3600.0
_LONGEST_LEAD_S = 3600.0
_CLOCKS_DIFFER_S = 24 * _HOUR_S


@dataclass(frozen=True, slots=True)
class Terms:
    """What pins are sold by."""

    period_s: float
    grace_s: float
    """How long an object stays when there is not enough credit for its next period."""

    @property
    def lead_s(self) -> float:
        """How long before a period begins it is paid."""
        return min(self.period_s / 10, _LONGEST_LEAD_S)

    def first(self, now: float) -> Due:
        """The first period of a pin that is made now."""
        return Due(now, now + self.period_s)

    def next(self, pin: Pin, now: float) -> Due | None:
        """The period that is to be paid now; None when none is."""
        if pin.due is not None:
            return pin.due
        if now < pin.paid_until - self.lead_s:
            return None
        start = pin.paid_until if now <= pin.paid_until + self.grace_s else now
        return Due(start, start + self.period_s)

    def is_over(self, pin: Pin, now: float) -> bool:
        """Whether the time of grace is over, too."""
        return pin.refused_since is not None and pin.due is None and now >= self.ends_at(pin)

    def ends_at(self, pin: Pin) -> float:
        """When a pin ends for which no more is paid: Unix time, in s."""
        return max(pin.paid_until, pin.refused_since or 0.0) + self.grace_s


class Periods:
    """Pays for periods.

    Args:
        holds: pays, if need be out of credit that this edge has leased.
        ledger: tells what was paid before.
        records: the pins.
    """

    def __init__(self, holds: Holds, ledger: Ledger, records: PinRecords) -> None:
        self._holds = holds
        self._ledger = ledger
        self._records = records
        self._edge_id = ""

    async def pay(self, pin: Pin, due: Due, *, again: bool) -> int:
        """Pays for a period that is recorded as due, once however often it is asked; the amount.

        Raises InsufficientCreditError (nothing was paid), and what the credit service raises (it is
        not known whether it was paid: ask again, and say so).
        """
        units = quantity(pin.size_bytes, due)
        if units == 0:
            return 0
        request_id = await self._request_id(pin, due)
        if again:  # perhaps so late that the id alone would not be recognised
            since = min(due.start, time.time()) - _CLOCKS_DIFFER_S
            amount = await self._ledger.debited(pin.account_id, request_id, since)
            if amount is not None:
                return amount
        usage = Usage(pin.account_id, METER, units, str(pin.key))
        return await self._holds.debit(usage, request_id)

    async def _request_id(self, pin: Pin, due: Due) -> str:
        self._edge_id = self._edge_id or await self._records.edge_id()
        text = f"{self._edge_id}\0{pin.account_id}\0{pin.key}\0{due.start!r}"
        return f"pin-{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def quantity(size_bytes: int, due: Due) -> int:
    """What a period is on the meter: byte-hours, rounded up."""
    return math.ceil(size_bytes * (due.end - due.start) / _HOUR_S)
