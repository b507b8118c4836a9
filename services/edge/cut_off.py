"""The end of deliveries that their readers draw out: before what pays for them ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

# Looked at again after so long at the latest; timers of the loop do not take any time.
_LONGEST_S = 3600.0


class CutOff:
    """Ends a delivery when its time is over, which may move until then; made in the event loop.

    Args:
        ends_at: when it must have ended, as of now, on the clock of ``time.monotonic``.
        abort: ends it.
    """

    __slots__ = ("_abort", "_ends_at", "_timer")

    def __init__(self, ends_at: Callable[[], float], abort: Callable[[], None]) -> None:
        self._ends_at = ends_at
        self._abort = abort
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    def cancel(self) -> None:
        """The delivery has ended by itself."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        left_s = max(0.0, min(self._ends_at() - time.monotonic(), _LONGEST_S))
        self._timer = asyncio.get_running_loop().call_later(left_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if time.monotonic() >= self._ends_at():
            self._abort()
        else:
            self._wait()
