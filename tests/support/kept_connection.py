"""One connection to an HTTP server, kept: requests as they are written, answers to the byte."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from tests.support.deadline import DEADLINE_S


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer as it came."""

    head: bytes
    """Its lines, without the empty one."""
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head[9:12])

    @property
    def fields(self) -> list[tuple[str, str]]:
        """In order, with their names as they were sent."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]

    def field(self, name: str) -> str | None:
        return dict(self.fields).get(name)


class KeptConnection:
    """Made by ``open``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        return cls(*await asyncio.open_connection(host, port))

    def write(self, request: bytes) -> None:
        self._writer.write(request)

    async def answer(self, *, has_body: bool = True) -> RawAnswer:
        """The next one."""
        async with asyncio.timeout(DEADLINE_S):
            head = (await self._reader.readuntil(b"\r\n\r\n"))[:-4]
            answer = RawAnswer(head, b"")
            length = int(answer.field("content-length") or 0) if has_body else 0
            return RawAnswer(head, await self._reader.readexactly(length))

    async def get(self, path: str, headers: Mapping[str, str]) -> RawAnswer:
        self.write(get_request(path, headers))
        return await self.answer()

    async def ended(self) -> bytes:
        """What else comes, until the server ends the connection."""
        async with asyncio.timeout(DEADLINE_S):
            return await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


def get_request(path: str, headers: Mapping[str, str]) -> bytes:
    fields = {"Host": "edge", **headers}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
