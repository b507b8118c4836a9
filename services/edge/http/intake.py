"""Which requests are let in, how many are under way, and the line that each leaves in the log."""

from __future__ import annotations

from services.process.logs import BatchedLines
from services.rpc.errors import OverloadedError, ShuttingDownError


class Intake:
    """What all requests of the HTTP face have in common, however they are answered.

    Args:
        most: further requests are refused (OVERLOADED).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way = 0
        self._closed = False
        self._lines = BatchedLines("request")

    def close(self) -> None:
        """From now on every new request is refused (SHUTTING_DOWN)."""
        self._closed = True

    @property
    def has_room(self) -> bool:
        """Whether one more request would be let in."""
        return self._under_way < self._most and not self._closed

    def check(self) -> None:
        """Refuses a request that has entered: raises ShuttingDownError, OverloadedError."""
        if self._closed:
            raise ShuttingDownError
        if self._under_way > self._most:
            raise OverloadedError

    def enter(self) -> None:
        """A request begins."""
        self._under_way += 1

    def leave(self) -> None:
        """A request has ended."""
        self._under_way -= 1

    def record(self, fields: dict[str, object]) -> None:
        """The canonical line of a request; written with others, at most 0.1 s late."""
        self._lines.add(fields)

    def flush(self) -> None:
        """Writes the lines that wait."""
        self._lines.flush()
