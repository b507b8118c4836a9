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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WINDOW = 1 << 30
DEFAULT_WINDOW = 65_535
FRAME_BYTES = 16_384
"""The largest frame that every peer takes."""
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
        self._room = self._stream_room = DEFAULT_WINDOW
        settings = struct.pack(">HI", SETTING_INITIAL_WINDOW_SIZE, WINDOW)
        window = struct.pack(">I", WINDOW - DEFAULT_WINDOW)
        hello = _frame(SETTINGS, 0, 0, settings) + _frame(WINDOW_UPDATE, 0, 0, window)
        self._socket.sendall(PREFACE + hello)

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def run(
        self, method: str, messages: Iterator[bytes], *, in_flight: int, seconds: float | None
    ) -> Outcome:
        """Keeps ``in_flight`` calls going for ``seconds`` or (None) to the end of the messages.

        Raises ConnectionError when the server closes the connection or resets a stream.
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
            if seconds is None or now - begin < seconds:
                self._start(block, messages, len(ended), started)
        return Outcome(len(latencies), time.perf_counter() - begin, latencies)

    def stream(
        self,
        method: str,
        messages: Iterator[bytes],
        count: Callable[[bytes], int],
        *,
        size: int,
        window: int,
        seconds: float,
    ) -> Outcome:
        """One bidirectional stream: ``window`` items of ``size`` a message are kept unanswered.

        ``count`` says how many items an answer's message settles. Keeps to the server's flow
        control, so it is for a connection that was not used before.
        """
        number, self._next_stream = self._next_stream, self._next_stream + 2
        block = _header_block(method, self._authority)
        self._socket.sendall(_frame(HEADERS, END_HEADERS, number, block))
        begin = time.perf_counter()
        sent = answered = 0
        stream = _Stream(count)
        waiting = b""
        while True:
            now = time.perf_counter()
            open_ = now - begin < seconds
            while open_ and not waiting and sent - answered + size <= window:
                waiting += _message(next(messages))
                sent += size
            room = max(0, min(self._room, self._stream_room, len(waiting)))
            if room:
                self._socket.sendall(_data(number, waiting[:room]))
                waiting = waiting[room:]
                self._room -= room
                self._stream_room -= room
                continue
            if not open_ and not waiting and not stream.closed:
                stream.closed = True
                self._socket.sendall(_frame(DATA, END_STREAM, number, b""))
            for kind, payload in self._frames():
                if kind == DATA:
                    answered += stream.feed(payload)
                elif kind == HEADERS and stream.closed and answered == sent:
                    return Outcome(answered, time.perf_counter() - begin)

    def _frames(self) -> list[tuple[int, bytes]]:
        """Waits for bytes; the frames in them, after minding what is the connection's."""
        chunk = self._socket.recv(1 << 18)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        buffer, at, frames = self._buffer + chunk, 0, []
        while len(buffer) - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) - at < 9 + length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            on_stream = buffer[at + 5 : at + 9] != b"\x00\x00\x00\x00"
            payload = buffer[at + 9 : at + 9 + length]
            if kind == WINDOW_UPDATE and on_stream:
                self._stream_room += int.from_bytes(payload, "big")
            elif kind == WINDOW_UPDATE:
                self._room += int.from_bytes(payload, "big")
            elif kind in {DATA, HEADERS}:
                frames.append((kind, payload))
                self._received += length
            else:
                self._control(kind, flags, payload)
            at += 9 + length
        self._buffer = buffer[at:]
        self._open_window()
        return frames

    def _start(
        self, block: bytes, messages: Iterator[bytes], count: int, started: dict[int, float]
    ) -> None:
        out = []
        now = time.perf_counter()
        for _ in range(count):
            message = next(messages, None)
            if message is None:
                break
            stream, self._next_stream = self._next_stream, self._next_stream + 2
            out.append(_frame(HEADERS, END_HEADERS, stream, block))
            out.append(_data(stream, _message(message), last=END_STREAM))
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
            for setting, value in struct.iter_unpack(">HI", payload):
                if setting == SETTING_INITIAL_WINDOW_SIZE:
                    self._stream_room += value - DEFAULT_WINDOW
            self._socket.sendall(_frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._socket.sendall(_frame(PING, ACK, 0, payload))
        elif kind in {GOAWAY, RST_STREAM}:
            raise ConnectionError(f"the server refused (frame type {kind}): {payload!r}")

    def _open_window(self) -> None:
        if self._received > WINDOW // 2:
            self._socket.sendall(_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0


class _Stream:
    """The answers of one stream."""

    def __init__(self, count: Callable[[bytes], int]) -> None:
        self._count = count
        self._bytes = b""
        self.closed = False
        """Nothing more is sent."""

    def feed(self, payload: bytes) -> int:
        """How many items the messages settle that are complete with this."""
        data, settled = self._bytes + payload, 0
        while len(data) >= 5:
            end = 5 + int.from_bytes(data[1:5], "big")
            if len(data) < end:
                break
            settled += self._count(data[5:end])
            data = data[end:]
        self._bytes = data
        return settled


def _message(message: bytes) -> bytes:
    return b"\x00" + struct.pack(">I", len(message)) + message


def _data(stream: int, body: bytes, last: int = 0) -> bytes:
    """As many frames as it takes; ``last`` are the flags of the last one."""
    if len(body) <= FRAME_BYTES:
        return _frame(DATA, last, stream, body)
    first = _frame(DATA, 0, stream, body[:FRAME_BYTES])
    return first + _data(stream, body[FRAME_BYTES:], last)


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
