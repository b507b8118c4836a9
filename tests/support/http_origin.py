"""An HTTP/1.1 origin that a test tells what to answer, byte for byte if need be.

A test says ``origin.on("/a", answer(200, b"body", cache_control="max-age=60"))`` and later looks at
``origin.requests``, or ``origin.asked("/a")``.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Self


@dataclass(frozen=True)
class Request:
    """A request that came."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes = field(default=b"", repr=False)

    def __getitem__(self, name: str) -> str | None:
        """The value of a field, lines joined; None when it did not come."""
        found = [value for other, value in self.fields if other == name]
        return ", ".join(found) if found else None


Script = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]
"""Writes what is answered; the connection goes on unless it was closed."""


def answer(status: int = 200, body: bytes = b"", **fields: str) -> Script:
    """A whole answer; names of fields are written with underscores, Date is added."""

    async def write(request: Request, writer: asyncio.StreamWriter) -> None:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        named.setdefault("date", formatdate(usegmt=True))
        if status not in {204, 304}:
            named.setdefault("content-length", str(len(body)))
        writer.write(head(status, named) + (b"" if request.method == "HEAD" else body))

    return write


def head(status: int, fields: dict[str, str]) -> bytes:
    """The head of an answer."""
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class HttpOrigin:
    """The origin; answers 404 where nothing was said."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.requests: list[Request] = []
        self._scripts: dict[str, Script] = {}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Takes no more connections, and ends those that there are."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._connections):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    def on(self, path: str, script: Script) -> None:
        """From now on, requests for a path (without the query) are answered so."""
        self._scripts[path] = script

    def asked(self, target: str) -> int:
        """How many requests came for a target."""
        return sum(request.target == target for request in self.requests)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    request = await _request(reader)
                    self.requests.append(request)
                    path = request.target.partition("?")[0]
                    await self._scripts.get(path, answer(404))(request, writer)
                    await writer.drain()
        finally:
            self._connections.discard(writer)
            writer.close()


async def _request(reader: asyncio.StreamReader) -> Request:
    text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = text.split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    fields = []
    for line in lines:
        name, _, value = line.partition(":")
        fields.append((name.lower(), value.strip()))
    request = Request(method, target, fields)
    return Request(method, target, fields, await _body(reader, request))


async def _body(reader: asyncio.StreamReader, request: Request) -> bytes:
    length = request["content-length"]
    if length is not None:
        return await reader.readexactly(int(length))
    body = b""
    if request["transfer-encoding"] == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    return body
