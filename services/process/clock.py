"""The wall clock as the services that keep records read it: an argument of what they do."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Microseconds since 1970, UTC."""


def now_us() -> int:
    """Microseconds since 1970, UTC. May jump when the machine's clock is set."""
    return time.time_ns() // 1000
