"""An HTTP/2 client that does what no gRPC library lets one do: every header and frame by hand."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

import grpc
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from tests.support.deadline import DEADLINE_S

Message = Any
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def request_headers(path: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The headers of a gRPC call, and more or others."""
    return {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        **(more or {}),
    }


def framed(message: bytes, flag: int = 0) -> bytes:
    """A length-prefixed message (gRPC over HTTP/2, "Length-Prefixed-Message")."""
    return struct.pack(">BI", flag, len(message)) + message


@dataclass
class Answer:
    """What came back on a stream so far."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None
    """The error code of RST_STREAM, or -1 when the connection ended."""

    @property
    def http_status(self) -> int:
        """The HTTP status; 0 when no headers came."""
        return int(self.headers.get(":status", 0))

    @property
    def code(self) -> grpc.StatusCode | None:
        """The gRPC status, from trailers or a Trailers-Only answer; None when there is none."""
        text = self.trailers.get("grpc-status", self.headers.get("grpc-status"))
        return None if text is None else _CODES[int(text)]

    @property
    def trailers_only(self) -> bool:
        """Whether the status came in the only header block."""
        return "grpc-status" in self.headers

    @property
    def details(self) -> str:
        """The status's message."""
        text = self.trailers.get("grpc-message", self.headers.get("grpc-message", ""))
        return unquote(text)

    @property
    def messages(self) -> list[tuple[int, bytes]]:
        """Compressed flag and bytes of each message; what is left over must be nothing."""
        found, at = [], 0
        while at < len(self.body):
            flag, length = struct.unpack(">BI", self.body[at : at + 5])
            assert len(self.body) >= at + 5 + length, "the last message is cut off"
            found.append((flag, self.body[at + 5 : at + 5 + length]))
            at += 5 + length
        return found

    @property
    def message(self) -> bytes:
        """The only message."""
        ((flag, message),) = self.messages
        assert flag == 0
        return message


class Http2Peer:
    """One connection; with ``reading`` False it leaves windows closed that were used up."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        config = h2.config.H2Configuration(
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            header_encoding="utf-8",
        )
        self._http2 = h2.connection.H2Connection(config)
        self._reader, self._writer = reader, writer
        self._answers: dict[int, Answer] = {}
        self._changed = asyncio.Condition()
        self._pump: asyncio.Task[None] | None = None
        self.reading = True
        self.goaway = False
        self.lost = False

    @classmethod
    @asynccontextmanager
    async def connected(cls, address: str) -> AsyncIterator[Self]:
        """Connects; at the end of the block closes the connection without a word."""
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        peer = cls(reader, writer)
        peer._http2.initiate_connection()
        peer._flush()
        peer._pump = asyncio.create_task(peer._receive())
        try:
            yield peer
        finally:
            peer._pump.cancel()
            await asyncio.gather(peer._pump, return_exceptions=True)
            writer.transport.abort()

    async def start(self, headers: Mapping[str, str], *, end: bool = False) -> int:
        """Opens a stream."""
        stream: int = self._http2.get_next_available_stream_id()
        self._answers[stream] = Answer()
        self._http2.send_headers(stream, list(headers.items()), end_stream=end)
        self._flush()
        return stream

    async def call(
        self,
        path: str,
        request: Message,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Starts a whole call with one request."""
        stream = await self.start(request_headers(path, headers))
        await self.send(stream, framed(request.SerializeToString()), end=True)
        return stream

    async def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Sends bytes of a body as the windows allow."""
        while data:
            await self._until(lambda: self.sendable(stream) > 0 or self._over(stream))
            if self._over(stream):
                return
            size = min(len(data), self.sendable(stream))
            self._http2.send_data(stream, data[:size])
            data = data[size:]
            self._flush()
        if end:
            self.end(stream)

    def end(self, stream: int) -> None:
        """Ends this side of a stream, if it is open still."""
        if not self._over(stream):
            self._http2.end_stream(stream)
            self._flush()

    def sendable(self, stream: int) -> int:
        """Bytes that the server takes now in one frame."""
        try:
            window = self._http2.local_flow_control_window(stream)
        except h2.exceptions.ProtocolError:
            return 0
        return min(window, self._http2.max_outbound_frame_size)

    def resume(self, stream: int) -> None:
        """Reads on, after ``reading`` was False."""
        self.reading = True
        unread = len(self._answers[stream].body)
        self._http2.acknowledge_received_data(unread, stream)
        self._flush()

    def reset(self, stream: int, code: int = h2.errors.ErrorCodes.CANCEL) -> None:
        """Gives a stream up."""
        self._http2.reset_stream(stream, code)
        self._flush()

    def send_raw(self, data: bytes) -> None:
        """Writes bytes as they are, frames or not."""
        self._writer.write(data)

    def close(self, *, reset: bool = False) -> None:
        """Closes the connection without a word; with ``reset`` by RST."""
        if reset:
            linger = struct.pack("ii", 1, 0)
            self._writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
        self._writer.transport.abort()

    async def answer(self, stream: int) -> Answer:
        """Waits for the end of a stream, whichever it is."""
        answer = self._answers[stream]
        await self._until(lambda: answer.ended or answer.reset is not None)
        return answer

    async def until_body(self, stream: int, size: int) -> Answer:
        """Waits until so many bytes of the body arrived, or the stream ended."""
        answer = self._answers[stream]
        await self._until(
            lambda: len(answer.body) >= size or answer.ended or answer.reset is not None
        )
        return answer

    def _over(self, stream: int) -> bool:
        answer = self._answers[stream]
        return answer.ended or answer.reset is not None

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(condition)

    def _flush(self) -> None:
        self._writer.write(self._http2.data_to_send())

    async def _receive(self) -> None:
        while True:
            try:
                data = await self._reader.read(1 << 18)
            except ConnectionError:
                data = b""
            async with self._changed:
                if not data:
                    self._lose()
                else:
                    for event in self._http2.receive_data(data):
                        self._take(event)
                    self._flush()
                self._changed.notify_all()
            if not data:
                return

    def _lose(self) -> None:
        self.lost = True
        for answer in self._answers.values():
            if not answer.ended and answer.reset is None:
                answer.reset = -1

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived(stream_id=int(stream), headers=headers):
                self._answers[stream].headers = _texts(headers)
            case h2.events.TrailersReceived(stream_id=int(stream), headers=headers):
                self._answers[stream].trailers = _texts(headers)
            case h2.events.DataReceived(stream_id=int(stream), data=bytes(data)):
                self._answers[stream].body += data
                if self.reading and event.flow_controlled_length:
                    self._http2.acknowledge_received_data(event.flow_controlled_length, stream)
            case h2.events.StreamEnded(stream_id=int(stream)):
                self._answers[stream].ended = True
            case h2.events.StreamReset(stream_id=int(stream), error_code=code):
                answer = self._answers[stream]
                if not answer.ended:
                    answer.reset = int(code or 0)
            case h2.events.ConnectionTerminated():
                self.goaway = True
            case _:
                pass


def _texts(headers: Any) -> dict[str, str]:  # noqa: ANN401 (h2 gives text with a header_encoding)
    return {str(name): str(value) for name, value in headers or ()}
