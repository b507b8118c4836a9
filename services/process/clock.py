"""The wall clock as the services that keep records read it: an argument of what they do."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Microseconds since 1970, UTC."""


def now_us() -> int:
    """Microseconds since 1970, UTC. May jump when the machine's clock is set."""
    return time.time_ns() // 1000


class JumpMeter:
    """Measures how far a wall clock has jumped, by the monotonic clock."""

    def __init__(self, wall_us: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``monotonic`` counts seconds."""
        self._wall_us = wall_us
        self._monotonic = monotonic
        self._ahead_s = self._measured_s()

    def jumped_s(self) -> float:
        """How many seconds it jumped since the last call or the beginning; negative: backwards.

        A machine that slept jumps forwards, too. A clock that is being brought right slowly is a
        few thousandths off.
        """
        before_s, self._ahead_s = self._ahead_s, self._measured_s()
        return self._ahead_s - before_s

    def _measured_s(self) -> float:
        return self._wall_us() / 1_000_000 - self._monotonic()
