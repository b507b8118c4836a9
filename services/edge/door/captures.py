"""What other servers' logs tell, told to the door."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from services.edge.door.door import CaptureOutcome, Door
from services.edge.door.log_file import LogFile
from services.edge.door.log_lines import LineMalformedError, delivered
from services.process.logs import get_logger

log = get_logger(__name__)

_AT_ONCE = 64
_ABANDONED_S = 60.0
_MOST_ABANDONED = 4096


class Captures:
    """Takes lines of logs; one that is taken twice does no harm.

    Args:
        door: settles tickets.
        log: a log to follow, if there is one.
        directory: where it is kept how far it was read.
    """

    def __init__(self, door: Door, log: Path | None, directory: Path) -> None:
        self._door = door
        self._abandoned: dict[str, float] = {}
        position = directory / "capture-log.position"
        self._log = LogFile(log, position, self.take) if log is not None else None

    def start(self) -> None:
        """Begins to follow the log, in the background."""
        if self._log is not None:
            self._log.start()

    async def stop(self) -> None:
        """Takes what is in the log, and ends. What comes later, the next process reads."""
        if self._log is not None:
            await self._log.stop()

    async def catch_up(self) -> None:
        """Returns when what is in the log by now was taken: a place or credit may be free then."""
        if self._log is not None:
            await self._log.catch_up()

    async def take(self, lines: Sequence[bytes]) -> None:
        """Takes lines, and lets others work meanwhile. What cannot be read is in our own log."""
        malformed = unknown = 0
        for position, line in enumerate(lines):
            try:
                unknown += self.take_line(line) is CaptureOutcome.UNKNOWN
            except LineMalformedError:
                malformed += 1
            except Exception:  # one line must not keep the others from being read
                log.exception("log_line_failed")
            if position % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
        if malformed or unknown:
            log.warning("log_lines_unusable", malformed=malformed, unknown_tickets=unknown)

    def take_line(self, line: bytes | str) -> CaptureOutcome | None:
        """Takes a line; None when there is nothing to settle. Raises LineMalformedError."""
        told = delivered(line)
        if told.ticket:
            return self._door.capture(told.ticket, told.total_bytes, final=True)
        # The reader left before the other server had our answer, in which the ticket is.
        return self._abandon(told.request) if told.request else None

    def is_abandoned(self, request: str) -> bool:
        """Whether it is known that nobody waits for the answer to a request any more."""
        return self._abandoned.pop(request, None) is not None

    def _abandon(self, request: str) -> CaptureOutcome | None:
        ticket = self._door.ticket_of("", request)
        if ticket:
            return self._door.capture(ticket, 0, final=True)
        # Perhaps it is still to be given.
        now = time.monotonic()
        for name, told_at in list(self._abandoned.items()):
            if now - told_at < _ABANDONED_S and len(self._abandoned) < _MOST_ABANDONED:
                break
            del self._abandoned[name]
        self._abandoned[request] = now
        return None
