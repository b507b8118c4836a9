"""A client that sends what it is told, byte for byte, and reads answers strictly (RFC 9112)."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from tests.support.deadline import DEADLINE_S

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [\t\x20-\x7e\x80-\xff]*").fullmatch
_FIELD_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*"
).fullmatch


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer as it came."""

    status: int
    fields: tuple[tuple[str, str], ...]
    """Names in small letters."""
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for each, value in self.fields if each == name]

    def one(self, name: str) -> str | None:
        """The value of a field that may be there once. Raises AssertionError for more."""
        values = self.all(name)
        assert len(values) <= 1, (name, values)
        return values[0] if values else None


class RawClient:
    """One connection after the other to one server. Every method blocks."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None
        self._pending = b""

    def ask(self, method: str, target: str, fields: Iterable[tuple[str, str]]) -> RawAnswer:
        """Sends a request without a body and reads its answer.

        Raises AssertionError for what is no answer, OSError; the next request has a new connection.
        """
        try:
            return self._asked(method, target, fields)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the connection."""
        self._pending = b""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _asked(self, method: str, target: str, fields: Iterable[tuple[str, str]]) -> RawAnswer:
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        self._connected().sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        status, answered = self._head()
        answer = RawAnswer(status, answered, b"")
        length = answer.one("content-length")
        assert answer.one("transfer-encoding") is None, "an object's size is known"
        if method != "HEAD" and status not in {204, 304}:
            assert length is not None
            answer = RawAnswer(status, answered, self._read(int(length)))
        if answer.one("connection") == "close":
            self._end()
        assert self._pending == b"", "nothing follows the answer"
        return answer

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, DEADLINE_S)
        return self._socket

    def _head(self) -> tuple[int, tuple[tuple[str, str], ...]]:
        while b"\r\n\r\n" not in self._pending:
            self._receive()
        head, _, self._pending = self._pending.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        match = _STATUS_LINE(line)
        assert match, line
        return int(match[1]), tuple(_field(each) for each in lines)

    def _read(self, count: int) -> bytes:
        while len(self._pending) < count:
            self._receive()
        data, self._pending = self._pending[:count], self._pending[count:]
        return data

    def _receive(self) -> None:
        data = self._connected().recv(262_144)
        assert data, "the connection ended within an answer"
        self._pending += data

    def _end(self) -> None:
        """Reads that the server has ended the connection, with nothing behind the answer."""
        assert self._connected().recv(1) == b""
        self.close()


def _field(line: bytes) -> tuple[str, str]:
    match = _FIELD_LINE(line)
    assert match, line
    return match[1].decode("ascii").lower(), match[2].decode("latin-1")
