"""When a call is sent again, decided without any I/O.

Only what the contract calls retryable, always with the same request id, with exponential back-off
and full jitter, never before the server's RetryInfo, never beyond the call's own deadline, and
within a budget that keeps a fleet of clients from drowning a service that comes back.
"""

from __future__ import annotations

import random
import threading
import time

from tollmesh.client.errors import TollmeshError
from tollmesh.client.options import Retries


def left_s(deadline: float | None) -> float | None:
    """Until a deadline, or None without one; 0 when it has passed."""
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


class Budget:
    """Retries that a client may still make; shared by all its calls and threads."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._left = float(retries.budget)
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def called(self) -> None:
        """A call was made: that earns a part of a retry."""
        self._left = min(self._left + self._retries.budget_per_call, self._retries.budget)

    def take(self) -> bool:
        """Takes one retry; False when none is left."""
        with self._lock:
            now = time.monotonic()
            earned = (now - self._at) * self._retries.budget_per_s
            self._left = min(self._left + earned, self._retries.budget)
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


class Attempts:
    """The attempts of one call."""

    def __init__(self, retries: Retries, budget: Budget, deadline: float) -> None:
        """``deadline``: of the whole call, as ``time.monotonic()`` counts."""
        self._retries = retries
        self._budget = budget
        self._ceiling_s = retries.first_s
        self.deadline = deadline
        budget.called()

    def timeout_s(self) -> float:
        """For the next attempt."""
        return max(min(self._retries.attempt_s, self.deadline - time.monotonic()), 0.001)

    def pause_s(self, error: TollmeshError) -> float | None:
        """How long to wait before the call is sent again. None: it is not."""
        if not error.retryable:
            return None
        pause = (error.retry_after_s or 0.0) + random.uniform(0, self._ceiling_s)  # noqa: S311 (jitter)
        self._ceiling_s = min(2 * self._ceiling_s, self._retries.longest_s)
        if time.monotonic() + pause >= self.deadline or not self._budget.take():
            return None
        return pause
