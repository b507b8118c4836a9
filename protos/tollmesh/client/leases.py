"""What is left of a lease and what is to be settled, without I/O; safe from any thread."""

from __future__ import annotations

import threading
import time
from collections import deque

from tollmesh.client.errors import LeaseExhausted
from tollmesh.client.request_ids import new_request_id
from tollmesh.client.requests import duration
from tollmesh.credits.v1 import leases_pb2 as pb

_MAX_LINES = 100
"""Of one settlement, as the contract has it."""


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
        self._spent: dict[str, list[int]] = {}
        self._pending: deque[pb.SettleLeaseRequest] = deque()
        self._lock = threading.Lock()

    @property
    def available(self) -> int:
        """What can still be spent here."""
        return self._available

    def spend(self, amount: int, resource: str) -> None:
        """Spends; raises LeaseExhausted, and ValueError for a negative amount."""
        if amount < 0:
            raise ValueError("an amount is not negative")
        with self._lock:
            if time.monotonic() >= self._ends_at:
                raise LeaseExhausted("the lease has expired before it could be settled")
            if amount > self._available:
                raise LeaseExhausted(f"{self._available} is left of the lease, not {amount}")
            self._available -= amount
            line = self._spent.setdefault(resource, [0, 0])
            line[0] += amount
            line[1] += 1

    def low(self) -> bool:
        """Whether more than half is gone."""
        return 2 * self._available < self._request.amount

    def settlement(self, *, final: bool) -> pb.SettleLeaseRequest:
        """What to send next: the settlement without an answer, or one of what was spent since."""
        with self._lock:
            if not self._pending:
                self._close_lines(final=final)
            return self._pending[0]

    def settled(self, answer: pb.SettleLeaseResponse, at: float) -> bool:
        """Takes an answer in; True when nothing is left to settle."""
        with self._lock:
            self._pending.popleft()
            self.hold = answer.hold
            self._ends_at = at + self._live_s
            unsettled = sum(amount for amount, _ in self._spent.values())
            unsettled += sum(line.amount for one in self._pending for line in one.spendings)
            self._available = answer.hold.remaining - unsettled
            return not self._pending and not self._spent

    def _close_lines(self, *, final: bool) -> None:
        lines = list(self._spent.items())
        self._spent = {}
        for begin in range(0, max(len(lines), 1), _MAX_LINES):
            part = lines[begin : begin + _MAX_LINES]
            last = begin + _MAX_LINES >= len(lines)
            self._pending.append(
                pb.SettleLeaseRequest(
                    request_id=new_request_id(),
                    account_id=self._request.account_id,
                    hold_id=self.hold.hold_id,
                    owner=self._request.owner,
                    spendings=[
                        pb.LeaseSpending(amount=amount, count=count, resource=resource)
                        for resource, (amount, count) in part
                    ],
                    target_amount=0 if final else self._request.amount,
                    time_to_live=None if final else duration(self._live_s),
                    final=final and last,
                )
            )
