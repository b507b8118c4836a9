"""Asks an origin: connections that are kept, bounds in number and time, one repetition.

A request without a body, of a method that is idempotent, is repeated once when the kept connection
it went out on turns out to be gone (RFC 9112, section 9.3.1). Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self
from urllib.parse import SplitResult, urlsplit

from services.edge.background import start
from services.edge.origins.connection import (
    ConnectionLostError,
    Head,
    Interim,
    OriginConnection,
)
from services.edge.origins.errors import OriginTimeoutError, OriginUnavailableError
from services.edge.origins.fields import Fields

_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})
_IDLE_CONNECTIONS = 32


class Answer:
    """An origin's answer; to be closed, whatever became of it."""

    def __init__(self, client: OriginClient, connection: OriginConnection, head: Head) -> None:
        self._client = client
        self._connection = connection
        self.upload: asyncio.Task[None] | None = None
        self.head = head

    async def read(self) -> bytes:
        """The next piece of the body; nothing at its end.

        Raises OriginUnavailableError when the body is broken off, OriginTimeoutError when nothing
        comes for too long.
        """
        try:
            async with asyncio.timeout(self._client.idle_s):
                return await self._connection.read()
        except TimeoutError:
            self._connection.close()
            raise OriginTimeoutError("The origin stopped amid its answer.") from None

    def close(self) -> None:
        """Gives the connection back, or ends it when something of the answer is still to come."""
        # An origin that still waits for the rest of a request would take the next one for it.
        is_whole = self.upload is None or _went_well(self.upload)
        if self.upload is not None:
            self.upload.cancel()
        connection = self._connection
        kept = connection.complete and connection.reusable and is_whole
        self._client.give_back(connection, kept=kept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OriginClient:
    """Talks to one origin.

    Args:
        url: of the origin: scheme, host and port count.
        connections: at most so many at once; further requests wait for one.
        connect_s: how long a connection may take to come about, a place for it included.
        answer_s: how long the head of an answer may take.
        idle_s: how long a body may pause.
        tls: the context for https.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int,
        connect_s: float,
        answer_s: float,
        idle_s: float,
        tls: ssl.SSLContext,
    ) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname or "", parts.port or (443 if _is_secure(parts) else 80)
        self._tls = tls if _is_secure(parts) else None
        self._places = asyncio.Semaphore(connections)
        self._connect_s = connect_s
        self._answer_s = answer_s
        self.idle_s = idle_s
        self._kept: list[OriginConnection] = []

    async def send(
        self,
        method: str,
        target: bytes,
        fields: Fields,
        body: AsyncIterator[bytes] | None = None,
        interim: Interim | None = None,
    ) -> Answer:
        """Sends a request.

        Args:
            method: of the request.
            target: path and query.
            fields: all of the request's, Host and Content-Length included.
            body: in pieces; without a Content-Length among the fields it goes out chunked.
            interim: told of interim answers.

        Raises OriginUnavailableError, OriginTimeoutError.
        """
        connection = await self._connection()
        repeatable = connection is not None and body is None and method in _REPEATABLE
        while True:
            connection = connection or await self._connected()
            try:
                return await self._exchange(connection, method, target, fields, body, interim)
            except ConnectionLostError as error:
                if not repeatable:
                    raise OriginUnavailableError("The origin does not answer.") from error
            repeatable, connection = False, None
            await self._place()

    async def _exchange(
        self,
        connection: OriginConnection,
        method: str,
        target: bytes,
        fields: Fields,
        body: AsyncIterator[bytes] | None,
        interim: Interim | None,
    ) -> Answer:
        upload: asyncio.Task[None] | None = None
        try:
            connection.begin(method, interim)
            chunked = body is not None and all(name != b"content-length" for name, _ in fields)
            await connection.write(_request(method, target, fields, chunked=chunked))
            if body is not None:
                sending = _send_body(connection, body, self.idle_s, chunked=chunked)
                upload = start(sending)
            head = await self._head(connection, upload)
        except BaseException:
            if upload is not None:
                upload.cancel()
            self.give_back(connection, kept=False)
            raise
        answer = Answer(self, connection, head)
        answer.upload = upload
        return answer

    async def _head(self, connection: OriginConnection, upload: asyncio.Task[None] | None) -> Head:
        """The head of the answer, which may come before the body has gone out."""
        waiting = start(connection.head())
        try:
            if upload is not None:
                await asyncio.wait({waiting, upload}, return_when=asyncio.FIRST_COMPLETED)
                if upload.done() and not waiting.done():
                    upload.result()  # the caller broke off, say
            async with asyncio.timeout(self._answer_s):
                return await asyncio.shield(waiting)
        except TimeoutError:
            raise OriginTimeoutError("The origin did not answer in time.") from None
        finally:
            waiting.cancel()

    def give_back(self, connection: OriginConnection, *, kept: bool) -> None:
        """Takes a connection back; without ``kept`` it is ended."""
        if kept and not connection.lost and len(self._kept) < _IDLE_CONNECTIONS:
            self._kept.append(connection)
        else:
            connection.close()
        self._places.release()

    def close(self) -> None:
        """Ends the connections that nobody uses."""
        while self._kept:
            self._kept.pop().close()

    async def _connection(self) -> OriginConnection | None:
        """A place, and a kept connection if there is one."""
        await self._place()
        while self._kept:
            connection = self._kept.pop()
            if not connection.lost:
                return connection
        return None

    async def _place(self) -> None:
        try:
            async with asyncio.timeout(self._connect_s):
                await self._places.acquire()
        except TimeoutError:
            raise OriginTimeoutError("All connections to the origin are in use.") from None

    async def _connected(self) -> OriginConnection:
        loop = asyncio.get_running_loop()
        host, port = self._address
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await loop.create_connection(
                    OriginConnection, host, port, ssl=self._tls
                )
        except TimeoutError:
            self._places.release()
            raise OriginTimeoutError("The origin does not take connections.") from None
        except OSError as error:
            self._places.release()
            raise OriginUnavailableError("The origin cannot be reached.") from error
        except BaseException:
            self._places.release()
            raise
        return connection


def _went_well(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _is_secure(parts: SplitResult) -> bool:
    return parts.scheme == "https"


def _request(method: str, target: bytes, fields: Fields, *, chunked: bool) -> bytes:
    lines = [b"%s %s HTTP/1.1\r\n" % (method.encode("ascii"), target)]
    lines += [b"%s: %s\r\n" % field for field in fields]
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    return b"".join(lines) + b"\r\n"


async def _send_body(
    connection: OriginConnection, body: AsyncIterator[bytes], idle_s: float, *, chunked: bool
) -> None:
    async def write(data: bytes) -> None:
        try:
            async with asyncio.timeout(idle_s):
                await connection.write(data)
        except TimeoutError:
            raise OriginTimeoutError("The origin stopped taking the request.") from None

    with suppress(OriginUnavailableError):  # the answer, or its lack, tells
        async for piece in body:
            await write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            await write(b"0\r\n\r\n")
