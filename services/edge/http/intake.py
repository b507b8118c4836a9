"""Which requests are let in, how many are under way, and the line that each leaves in the log."""

from __future__ import annotations

import asyncio
import time

from services.process.logs import BatchedLines
from services.rpc.errors import OverloadedError, ShuttingDownError
from services.rpc.trace import trace_id_for

HitRequest = tuple[float, str, str, str | None, str, str]
"""When it began (``time.perf_counter``), its path, its id, its traceparent, the client's address,
and the account."""

_BATCH_S = 0.05
_BATCH = 16  # so few that making their lines holds nobody up


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
        self._hits: list[tuple[HitRequest, int, float]] = []

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

    def note_hit(self, request: HitRequest, sent_bytes: int) -> None:
        """The same of a hit that was answered at once; its line is only made when it is written."""
        hits = self._hits
        if not hits:
            asyncio.get_running_loop().call_later(_BATCH_S, self._record_hits)
        hits.append((request, sent_bytes, time.perf_counter()))
        if len(hits) == _BATCH:
            asyncio.get_running_loop().call_soon(self._record_hits)

    def flush(self) -> None:
        """Writes the lines that wait."""
        self._record_hits()
        self._lines.flush()

    def _record_hits(self) -> None:
        hits, self._hits = self._hits, []
        now = time.perf_counter()
        for (started, path, request_id, trace_parent, peer, account_id), sent, ended in hits:
            self._lines.add(
                {
                    "method": "GET",
                    "path": path,
                    "status": 200,
                    "sent_bytes": sent,
                    "duration_ms": round((ended - started) * 1000, 3),
                    "request_id": request_id,
                    "trace_id": trace_id_for(trace_parent),
                    "peer": peer,
                    "account_id": account_id,
                    "cache": "hit",
                },
                now - ended,
            )
