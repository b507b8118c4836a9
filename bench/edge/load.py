"""The load: many kept connections to one HTTP server, each asking again when it has its answer.

It must cost less than the server, or the server idles and each request looks dearer than it is. So
it runs in a process of its own (``python -m bench.edge.load``, an order on standard input, the
outcome on standard output) on a core of its own, and has the kernel throw bodies away unread
(``MSG_TRUNC``, see tcp(7)): what arrived is counted, and never copied.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

_HEAD_BYTES = 2048
_SINK = bytearray(4 * 1024 * 1024)
_WAIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be asked for."""

    address: str
    """``host:port``."""
    requests: Sequence[str]
    """Whole requests without bodies (Latin-1); connections take them in turn."""
    connections: int
    seconds: float


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    seconds: float = 0.0
    """Until the last answer."""
    answers: int = 0
    body_bytes: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    p50_us: float = 0.0
    """From the request to the last byte of its answer."""
    p99_us: float = 0.0


class _Connection:
    """One kept connection."""

    __slots__ = ("head", "left", "socket", "started", "turn")

    def __init__(self, host: str, port: int, turn: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=_WAIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self.turn = turn
        self.started = 0.0
        self.left = -1
        """Bytes of the body still to come; -1 while the head is."""
        self.head = b""


class Load:
    """A run of one order."""

    def __init__(self, order: Order) -> None:
        self._requests = [request.encode("latin-1") for request in order.requests]
        host, _, port = order.address.rpartition(":")
        self._connections = {
            one.socket.fileno(): one
            for one in (
                _Connection(host, int(port), turn * 7919) for turn in range(order.connections)
            )
        }
        self._ends_at = time.perf_counter() + order.seconds
        self._statuses: Counter[str] = Counter()
        self._times: list[float] = []
        self._bytes = 0
        self._busy = 0

    def run(self) -> Outcome:
        """Asks until the time is over, and waits for what was asked. Raises ConnectionError."""
        started = time.perf_counter()
        poll = select.epoll()
        for fileno, one in self._connections.items():
            poll.register(fileno, select.EPOLLIN)
            self._ask(one)
        while self._busy:
            ready = poll.poll(_WAIT_S)
            if not ready:
                raise ConnectionError(f"no answer in {_WAIT_S:g} s")
            for fileno, _ in ready:
                self._take(self._connections[fileno])
        return self._outcome(time.perf_counter() - started)

    def _ask(self, one: _Connection) -> None:
        request = self._requests[one.turn % len(self._requests)]
        one.turn += 1
        self._busy += 1
        one.left, one.head = -1, b""
        one.started = time.perf_counter()
        one.socket.send(request)

    def _take(self, one: _Connection) -> None:
        try:
            if one.left < 0:
                self._take_head(one)
            while one.left > 0:
                wanted = min(one.left, len(_SINK))
                taken = one.socket.recv_into(_SINK, wanted, socket.MSG_TRUNC)
                if not taken:
                    raise ConnectionError("the server ended an answer short")
                one.left -= taken
                self._bytes += taken
                if taken < wanted:
                    return
        except BlockingIOError:
            return
        if one.left == 0:
            self._finish(one)

    def _take_head(self, one: _Connection) -> None:
        data = one.socket.recv(_HEAD_BYTES)
        if not data:
            raise ConnectionError("the server ended a connection")
        head = one.head + data
        end = head.find(b"\r\n\r\n")
        if end < 0:
            one.head = head
            return
        body = len(head) - end - 4
        self._statuses[head[9:12].decode("ascii")] += 1
        self._bytes += body
        one.left = _content_length(head[:end]) - body

    def _finish(self, one: _Connection) -> None:
        now = time.perf_counter()
        self._times.append(now - one.started)
        self._busy -= 1
        if now < self._ends_at:
            self._ask(one)

    def _outcome(self, seconds: float) -> Outcome:
        times = sorted(self._times)
        return Outcome(
            seconds=seconds,
            answers=len(times),
            body_bytes=self._bytes,
            statuses=dict(self._statuses),
            p50_us=1e6 * times[len(times) // 2],
            p99_us=1e6 * times[len(times) * 99 // 100],
        )


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(b"\r\ncontent-length:")
    if at < 0:
        if b"\r\ntransfer-encoding:" in lowered:
            raise ConnectionError("the load reads no chunked answers")
        return 0
    return int(lowered[at + 17 :].partition(b"\r")[0])


def main() -> None:
    """Takes an order, gives an outcome."""
    outcome = Load(Order(**json.load(sys.stdin))).run()
    json.dump(asdict(outcome), sys.stdout)


if __name__ == "__main__":
    main()
