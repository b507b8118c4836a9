"""What is left of a lease and what is to be settled, without I/O; safe from any thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import NamedTuple

from tollmesh.client.errors import LeaseExhausted
from tollmesh.client.request_ids import new_request_id
from tollmesh.client.requests import Metered, one_price
from tollmesh.credits.v1 import credits_pb2
from tollmesh.credits.v1 import leases_pb2 as pb

Key = tuple[str, str, credits_pb2.CacheResult.ValueType]
"""Resource, meter (empty: an amount), cache result: what is summed up in one line."""

_MAX_LINES = 100
"""Of one settlement, as the contract has it."""
LEAST_PAUSE_S = 0.02
"""Between settlements, however often a lease is found exhausted."""
_OF_A_LINE = {"METER_UNKNOWN", "INSUFFICIENT_CREDIT", "AMOUNT_OUT_OF_RANGE", "INVALID_ARGUMENT"}
"""Reasons for which one line makes the service refuse a whole settlement."""


class Spending(NamedTuple):
    """What is spent at once."""

    key: Key
    quantity: int
    """Of the meter."""
    amount: int
    """What it takes of the lease; of a metered quantity at most, until it is settled."""

    @classmethod
    def of(
        cls, amount: int | None, metered: Metered | None, estimate: int | None, resource: str
    ) -> Spending:
        """Raises ValueError for anything but an amount, or a metered quantity with an estimate."""
        one_price(amount, metered)
        if metered is None:
            if estimate is not None:
                raise ValueError("an estimate is for a metered quantity")
            spending = cls((resource, "", credits_pb2.CACHE_RESULT_UNSPECIFIED), 0, amount or 0)
        elif estimate is None:
            raise ValueError("a metered quantity needs an estimate: its price is not known here")
        else:
            key = (resource, metered.meter, metered.cache_result)
            spending = cls(key, metered.quantity, estimate)
        if spending.amount < 0 or spending.quantity < 0:
            raise ValueError("an amount or quantity is not negative")
        return spending


class _Settlement(NamedTuple):
    """A settlement and what its lines took of the lease."""

    request: pb.SettleLeaseRequest
    taken: tuple[int, ...]


class _Sum:
    """A line in the making."""

    __slots__ = ("amount", "count", "quantity")

    def __init__(self) -> None:
        self.quantity = self.amount = self.count = 0


class Account:
    """The books of one lease.

    A settlement that got no answer is repeated as it was; what is spent meanwhile goes into the
    next. Nothing is spent any more when the lease's time is over without a settlement.
    """

    def __init__(
        self, request: pb.OpenLeaseRequest, answer: pb.OpenLeaseResponse, at: float
    ) -> None:
        """``at``: when the request was sent, as ``time.monotonic()`` counts."""
        self.hold = answer.hold
        self._request = request
        self._live_s = request.time_to_live.ToTimedelta().total_seconds()
        self._ends_at = at + self._live_s
        self._available = answer.hold.remaining
        self._spent: dict[Key, _Sum] = {}
        self._pending: deque[_Settlement] = deque()
        self._refused_in_a_row = 0
        """Settlements of one line; what was refused was not done, and is not in doubt."""
        self._lock = threading.Lock()

    @property
    def available(self) -> int:
        """What can still be spent here."""
        return self._available

    def spend(self, spending: Spending) -> None:
        """Spends. Raises LeaseExhausted."""
        amount = spending.amount
        with self._lock:
            if time.monotonic() >= self._ends_at:
                raise LeaseExhausted("the lease has expired before it could be settled")
            if amount > self._available:
                raise LeaseExhausted(f"{self._available} is left of the lease, not {amount}")
            self._available -= amount
            line = self._spent.get(spending.key)
            if line is None:
                line = self._spent[spending.key] = _Sum()
            line.amount += amount
            line.quantity += spending.quantity
            line.count += 1

    def low(self) -> bool:
        """Whether more than half is gone."""
        return 2 * self._available < self._request.amount

    def settlement(self, *, final: bool) -> pb.SettleLeaseRequest:
        """What to send next: the settlement without an answer, or one of what was spent since."""
        with self._lock:
            if self._refused_in_a_row >= len(self._pending):  # nothing is unknown
                self._close_lines(final=final)
            return self._pending[0].request

    def settled(self, answer: pb.SettleLeaseResponse, at: float) -> None:
        """Takes an answer in."""
        with self._lock:
            self._pending.popleft()
            self._refused_in_a_row = 0
            self.hold = answer.hold
            self._ends_at = at + self._live_s
            unsettled = sum(line.amount for line in self._spent.values())
            unsettled += sum(sum(one.taken) for one in self._pending)
            self._available = answer.hold.remaining - unsettled

    def refused(self, reason: str) -> bool:
        """Takes a refusal of the first settlement in; True when there are others to be sent.

        Its halves go apart, until a line that is at fault stands alone, behind all others.
        """
        with self._lock:
            if reason not in _OF_A_LINE:
                return False
            first = self._pending.popleft()
            middle = len(first.request.spendings) // 2
            if middle:
                halves = self._part(first, 0, middle), self._part(first, middle, None)
                self._pending.extendleft(reversed(halves))
                return True
            self._pending.append(first)
            self._refused_in_a_row += 1
            return self._refused_in_a_row < len(self._pending) or bool(self._spent)

    def _close_lines(self, *, final: bool) -> None:
        """Puts what was spent before what was refused, and the end of the lease behind it."""
        lines = [_line(key, line) for key, line in self._spent.items()]
        taken = tuple(line.amount for line in self._spent.values())
        whole = _Settlement(pb.SettleLeaseRequest(spendings=lines), taken)
        begins = range(0, max(len(lines), 1), _MAX_LINES)
        fresh = [self._part(whole, begin, begin + _MAX_LINES, final=final) for begin in begins]
        again = [self._part(one, 0, None, final=final) for one in self._pending]
        self._pending = deque([*fresh, *again])
        self._pending[-1].request.final = final
        self._refused_in_a_row = 0
        self._spent = {}

    def _part(
        self, whole: _Settlement, begin: int, end: int | None, *, final: bool | None = None
    ) -> _Settlement:
        """Some lines of a settlement that is not in force, under a request id of their own."""
        request = pb.SettleLeaseRequest(
            request_id=new_request_id(),
            account_id=self._request.account_id,
            hold_id=self.hold.hold_id,
            owner=self._request.owner,
            spendings=whole.request.spendings[begin:end],
        )
        if final is None:  # a half: the second one may end the lease
            request.target_amount = whole.request.target_amount
            request.final = whole.request.final and end is None
        elif not final:
            request.target_amount = self._request.amount
        if request.target_amount:
            request.time_to_live.FromMicroseconds(round(self._live_s * 1_000_000))
        return _Settlement(request, whole.taken[begin:end])


def _line(key: Key, line: _Sum) -> pb.LeaseSpending:
    resource, meter, cache_result = key
    spending = pb.LeaseSpending(count=line.count, resource=resource)
    if meter:
        spending.metered.meter = meter
        spending.metered.quantity = line.quantity
        spending.metered.cache_result = cache_result
    else:
        spending.amount = line.amount
    return spending
