"""A load driver for unary gRPC calls that costs far less than the server it drives.

A gRPC client in Python spends as much on a call as a server does, so with it one measures the
client. This one writes HTTP/2 frames (RFC 9113) whose header block is encoded once, without
indexing (RFC 7541, section 6.2.2), and on the way back reads frame headers only: it counts ended
streams. It runs on a connection of its own and keeps a fixed number of calls in flight. What the
calls did is checked elsewhere, from the ledger.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WINDOW = 1 << 30
SETTING_INITIAL_WINDOW_SIZE = 4


@dataclass
class Outcome:
    """What one run of calls took."""

    calls: int
    seconds: float
    latencies_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds

    def percentile_ms(self, percent: int) -> float:
        """The latency that this share of the calls kept under, in milliseconds."""
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


class Driver:
    """One connection to a gRPC server."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._authority = address
        self._next_stream = 1
        self._buffer = b""
        self._received = 0
        settings = struct.pack(">HI", SETTING_INITIAL_WINDOW_SIZE, WINDOW)
        window = struct.pack(">I", WINDOW - 65_535)
        hello = _frame(SETTINGS, 0, 0, settings) + _frame(WINDOW_UPDATE, 0, 0, window)
        self._socket.sendall(PREFACE + hello)

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def run(
        self, method: str, messages: Iterator[bytes], *, in_flight: int, seconds: float
    ) -> Outcome:
        """Keeps ``in_flight`` calls going for ``seconds``, then lets them end.

        Raises ConnectionError when the server closes the connection, resets a stream, or
        ``messages`` runs dry.
        """
        block = _header_block(method, self._authority)
        started: dict[int, float] = {}
        begin = time.perf_counter()
        self._start(block, messages, in_flight, started)
        latencies: list[float] = []
        while started:
            ended = self._ended()
            now = time.perf_counter()
            latencies.extend(now - started.pop(stream) for stream in ended)
            if now - begin < seconds:
                self._start(block, messages, len(ended), started)
        return Outcome(len(latencies), time.perf_counter() - begin, latencies)

    def _start(
        self, block: bytes, messages: Iterator[bytes], count: int, started: dict[int, float]
    ) -> None:
        out = []
        now = time.perf_counter()
        for _ in range(count):
            stream, self._next_stream = self._next_stream, self._next_stream + 2
            message = next(messages, None)
            if message is None:
                raise ConnectionError("the load ran out of messages: prepare more")
            out.append(_frame(HEADERS, END_HEADERS, stream, block))
            body = b"\x00" + struct.pack(">I", len(message)) + message
            out.append(_frame(DATA, END_STREAM, stream, body))
            started[stream] = now
        self._socket.sendall(b"".join(out))

    def _ended(self) -> list[int]:
        """Waits for bytes; the streams that they end."""
        chunk = self._socket.recv(1 << 18)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        buffer, at, ended = self._buffer + chunk, 0, []
        while len(buffer) - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) - at < 9 + length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            if kind == HEADERS and flags & END_STREAM:
                ended.append(int.from_bytes(buffer[at + 5 : at + 9], "big"))
            elif kind not in {DATA, HEADERS}:
                self._control(kind, flags, buffer[at + 9 : at + 9 + length])
            elif kind == DATA:
                self._received += length
            at += 9 + length
        self._buffer = buffer[at:]
        self._open_window()
        return ended

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self._socket.sendall(_frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._socket.sendall(_frame(PING, ACK, 0, payload))
        elif kind in {GOAWAY, RST_STREAM}:
            raise ConnectionError(f"the server refused (frame type {kind}): {payload!r}")

    def _open_window(self) -> None:
        if self._received > WINDOW // 2:
            self._socket.sendall(_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def _header_block(method: str, authority: str) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-timeout": "60S",
        "user-agent": "tollmesh-bench",
    }
    return b"".join(
        b"\x00" + _text(name.encode()) + _text(value.encode()) for name, value in fields.items()
    )


def _text(value: bytes) -> bytes:
    assert len(value) < 127, "a longer text needs a longer length"
    return bytes([len(value)]) + value
