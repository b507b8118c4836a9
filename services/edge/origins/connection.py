"""One connection to an origin: HTTP/1.1 by httptools, one exchange at a time.

Fields come as they were sent (names in lower case), interim answers are told of, nothing is decoded
but the framing, and a body that ends before its framing says is an error. What an origin sends that
cannot be framed for sure (RFC 9112, section 6) is refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import httptools

from services.edge.origins.errors import OriginUnavailableError
from services.edge.origins.fields import Fields, split_list, value_of

_BUFFERED_BYTES = 256 * 1024
_MAX_HEAD_BYTES = 128 * 1024
_BODILESS = frozenset({204, 304})
_TOO_LARGE = "its head is too large"

Interim = Callable[[int, bytes, Fields], None]
"""Told of an interim answer: status, reason, fields."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer."""

    status: int
    reason: bytes
    fields: Fields
    length: int | None
    """Of the body that follows, in bytes; None when only its end will tell."""


class ConnectionLostError(OriginUnavailableError):
    """The connection ended before anything of an answer came: it may have been idle too long.

    The client turns it into its parent, or asks again.
    """


class OriginConnection(asyncio.Protocol):
    """A connection; made by ``loop.create_connection``."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._writable = asyncio.Event()
        self._writable.set()
        self._interim: Interim | None = None
        self._news: asyncio.Future[None] | None = None
        self._reset("GET")

    def _reset(self, method: str) -> None:
        self._method = method
        self._parser = httptools.HttpResponseParser(self)
        self._head: asyncio.Future[Head] = self._loop.create_future()
        self._asked = False
        self._fields: Fields = []
        self._reason = b""
        self._head_bytes = 0
        self._silent_bytes = 0
        """Received since the head, or the body, last went on: what the parser may hold."""
        self._has_head = False
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._error: OriginUnavailableError | None = None
        self._until_close = False
        self.complete = False
        """Whether all of the answer is here."""
        self.reusable = False
        """Whether another request may follow the answer."""

    @property
    def lost(self) -> bool:
        """Whether it has ended."""
        return self._transport is None or self._transport.is_closing()

    def begin(self, method: str, interim: Interim | None) -> None:
        """Gets ready for the answer to a request that is about to be written."""
        self._reset(method)
        self._interim = interim
        self._asked = True

    async def write(self, data: bytes) -> None:
        """Writes a part of the request; waits while the origin is slower than we are."""
        if self._transport is None or self.lost:
            raise self._error or ConnectionLostError
        self._transport.write(data)
        await self._writable.wait()

    async def head(self) -> Head:
        """The head of the answer. Raises OriginUnavailableError."""
        return await self._head

    async def read(self) -> bytes:
        """The next piece of the body; nothing at its end. Raises OriginUnavailableError."""
        while not self._pieces:
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            self._news = self._loop.create_future()
            await self._news
        piece = self._pieces.popleft()
        self._buffered -= len(piece)
        if self._buffered < _BUFFERED_BYTES // 2:
            self._resume()
        return piece

    def close(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        """The origin is slower than we are."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        if self.complete or not self._asked:
            self.close()  # nobody asked
            return
        self._silent_bytes += len(data)
        try:
            self._parser.feed_data(data)
            self._check_progress()
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, _RefusedError) as error:
            # Behind a whole answer it is garbage, which only makes the connection useless.
            self._fail(OriginUnavailableError(f"The origin's answer is not HTTP: {error}"))
            self.close()

    def eof_received(self) -> None:
        """The origin will send no more."""
        if self._has_head and self._until_close:
            self._finish(reusable=False)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        """It has ended."""
        self._writable.set()
        self._transport = None
        # A body that lasts until the end is whole only if that was said (RFC 9112, section 9.8).
        if self._head_bytes == 0 and not self._has_head:
            self._fail(ConnectionLostError("The origin closed the connection."))
        else:
            self._fail(OriginUnavailableError("The origin broke its answer off."))

    # What httptools tells.

    def on_message_begin(self) -> None:
        """An answer begins: an interim one, or the answer."""
        if self.complete:
            raise _RefusedError("more than one answer")
        self._fields, self._reason = [], b""

    def on_status(self, reason: bytes) -> None:
        """A part of the reason phrase."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field, of the head or of the trailer."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _MAX_HEAD_BYTES:
            raise _RefusedError(_TOO_LARGE)
        if not self._has_head:  # else it is a trailer, which may be dropped
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        status = self._parser.get_status_code()
        self._head_bytes += 1
        if status == 101:
            raise _RefusedError("it is in a protocol that nobody asked for")
        if status < 200:
            if self._interim is not None and status != 100:
                self._interim(status, self._reason, self._fields)
            return
        self._has_head = True
        self._silent_bytes = 0
        length = self._framed(status)
        if not self._head.done():
            self._head.set_result(Head(status, self._reason, self._fields, length))
        if length == 0 or self._method == "HEAD":
            self._finish(reusable=self._keeps_alive())

    def on_body(self, body: bytes) -> None:
        """A part of the body, without its framing."""
        if self.complete:
            raise _RefusedError("more than its length")
        self._silent_bytes = 0
        self._pieces.append(body)
        self._buffered += len(body)
        if self._buffered > _BUFFERED_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._tell()

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._has_head and not self.complete:
            self._finish(reusable=self._keeps_alive())

    def _check_progress(self) -> None:
        if self._silent_bytes > _MAX_HEAD_BYTES and not self.complete:
            raise _RefusedError(_TOO_LARGE)

    def _framed(self, status: int) -> int | None:
        """The length of the body (RFC 9112, section 6.3)."""
        if self._method == "HEAD" or status in _BODILESS:
            return 0
        coding = value_of(self._fields, b"transfer-encoding")
        if coding is not None:
            if coding.strip().lower() != "chunked":
                raise _RefusedError("it has a transfer coding that was not asked for")
            return None
        length = value_of(self._fields, b"content-length")
        if length is None:
            self._until_close = True
            return None
        return int(length)  # the parser has seen that it is one number

    def _keeps_alive(self) -> bool:
        tokens = {token.lower() for token in split_list(value_of(self._fields, b"connection"))}
        if self._until_close or "close" in tokens:
            return False
        return self._parser.get_http_version() == "1.1" or "keep-alive" in tokens

    def _finish(self, *, reusable: bool) -> None:
        if self._error is not None:
            return
        self.complete = True
        self.reusable = reusable
        # Whoever asks next listens, though nobody may have read this answer to its end.
        self._resume()
        self._tell()

    def _fail(self, error: OriginUnavailableError) -> None:
        self.reusable = False
        if self.complete or self._error is not None:
            return
        self._error = error
        if not self._head.done():
            self._head.set_exception(error)
            self._head.exception()  # nobody may be waiting
        self._tell()

    def _resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def _tell(self) -> None:
        if self._news is not None:
            with suppress(asyncio.InvalidStateError):
                self._news.set_result(None)


class _RefusedError(Exception):
    """An answer that is not taken."""
