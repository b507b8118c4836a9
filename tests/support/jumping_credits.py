"""The credit service as it is, but for its wall clock, which a test moves while it runs.

``python -m tests.support.jumping_credits`` is ``python -m services.credits`` whose clock is ahead
of the machine's by the seconds in the file that CLOCK_FILE names.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from services.credits import __main__ as credits_process
from services.credits.settings import CreditSettings
from services.process import clock
from services.process.lifecycle import run

CLOCK_FILE = "TOLLMESH_TEST_CLOCK_FILE"


class WallClock:
    """What the process takes for the time of day."""

    def __init__(self, file: Path) -> None:
        """``file``: where the clock stands."""
        self._file = file

    @property
    def ahead_s(self) -> float:
        """How far it is ahead of the machine's; negative: behind."""
        return float(self._file.read_text())

    def set_ahead(self, seconds: float) -> None:
        """Makes it jump."""
        partial = self._file.with_suffix(".new")
        partial.write_text(repr(seconds))
        partial.replace(self._file)

    def set_to(self, moment_s: float) -> None:
        """Makes it jump to a moment, in seconds since 1970."""
        self.set_ahead(moment_s - clock.now_us() / 1_000_000)

    def jump(self, seconds: float) -> None:
        """Makes it jump forwards, or (negative) backwards."""
        self.set_ahead(self.ahead_s + seconds)

    def now_us(self) -> int:
        """Microseconds since 1970, UTC."""
        return clock.now_us() + round(self.ahead_s * 1_000_000)


async def serve(settings: CreditSettings, stop: asyncio.Event) -> None:
    """As the service's own."""
    jumping = WallClock(Path(os.environ[CLOCK_FILE]))
    await credits_process.serve(settings, stop, jumping.now_us)


if __name__ == "__main__":
    run(CreditSettings, serve)
