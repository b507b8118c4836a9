"""A reader over a plain socket: reads as much as it is told, and knows what reached its machine."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
import time
from collections.abc import Mapping

from tests.support.deadline import DEADLINE_S

_SETTLED_S = 0.15


class RawReader:
    """One connection to an HTTP server. Every method blocks: call it on a thread."""

    def __init__(self, host: str, port: int, *, receive_buffer_bytes: int = 65_536) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._socket.settimeout(DEADLINE_S)
        self._socket.connect((host, port))
        self._pending = b""
        self.head = b""
        self.body_bytes = 0
        """Read so far of the answer's body."""

    def buffered(self) -> int:
        """The body's bytes that reached this machine up to now, read or not."""
        unread = struct.unpack("i", fcntl.ioctl(self._socket, termios.FIONREAD, b"\0" * 4))[0]
        return self.body_bytes + len(self._pending) + int(unread)

    def request(self, path: str, headers: Mapping[str, str]) -> None:
        """Sends a GET and reads the head of the answer."""
        lines = [f"GET {path} HTTP/1.1", "Host: edge", *(f"{k}: {v}" for k, v in headers.items())]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        data = self._pending
        while b"\r\n\r\n" not in data:
            more = self._socket.recv(1024)
            assert more, "the connection ended"
            data += more
        self.head, _, self._pending = data.partition(b"\r\n\r\n")
        self.body_bytes = 0

    def read(self, count: int) -> bytes:
        """Reads exactly so many bytes of the body."""
        while len(self._pending) < count:
            more = self._socket.recv(65_536)
            assert more, "the connection ended"
            self._pending += more
        data, self._pending = self._pending[:count], self._pending[count:]
        self.body_bytes += count
        return data

    def read_to_the_end(self) -> int:
        """Ends its own side, and reads until the server ends too; the body's bytes in all."""
        self._socket.shutdown(socket.SHUT_WR)
        total = self.body_bytes + len(self._pending)
        while data := self._socket.recv(65_536):
            total += len(data)
        return total

    def arrived(self) -> int:
        """The body's bytes that reached this machine, read or not, once no more arrive."""
        return self.body_bytes + len(self._pending) + unread_once_quiet(self._socket)

    def arrived_so_far(self) -> int:
        """As ``arrived``, at this moment."""
        return self.body_bytes + len(self._pending) + self._unread()

    def _unread(self) -> int:
        unread: int = struct.unpack("i", fcntl.ioctl(self._socket, termios.FIONREAD, b"\0" * 4))[0]
        return unread

    def close(self, *, reset: bool = False) -> None:
        """Goes away, politely or not."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def unread_once_quiet(connection: socket.socket) -> int:
    """What waits to be read, once no more arrives: by then all of it is acknowledged. Blocks."""
    deadline, since, before = time.monotonic() + DEADLINE_S, time.monotonic(), -1
    while time.monotonic() - since < _SETTLED_S:
        assert time.monotonic() < deadline, "bytes kept arriving"
        unread = struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, b"\0" * 4))[0]
        if unread != before:
            since, before = time.monotonic(), unread
        time.sleep(0.01)
    return before


async def open_reader(host: str, port: int, path: str, headers: Mapping[str, str]) -> RawReader:
    """Connects and asks for a path; returns with the head of the answer."""
    reader = await asyncio.to_thread(RawReader, host, port)
    await asyncio.to_thread(reader.request, path, headers)
    return reader
