"""Files to and from an edge over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import aiohttp
import orjson

from services.cli.failure import UNAVAILABLE, CommandError, of_http

CHUNK_BYTES = 256 * 1024
Advance = Callable[[int], object]


@dataclass(frozen=True)
class Edge:
    """One edge, and the key that pays there."""

    url: str
    key: str

    async def upload(
        self, path: Path, *, network: str, name: str, request_id: str, advance: Advance
    ) -> dict[str, object]:
        """Uploads a file; the edge's answer. Safe to repeat with the same request id.

        Raises CommandError with the edge's explanation.
        """
        headers = {"Idempotency-Key": request_id, "Content-Length": str(path.stat().st_size)}
        async with self._session() as session:
            request = session.post(
                f"/objects/{network}",
                params={"name": name} if name else None,
                data=_chunks(path, advance),
                headers=headers,
            )
            async with _reported(request) as response:
                return await _document(response)

    async def download(
        self, path: str, out: BinaryIO, *, byte_range: str | None, advance: Advance
    ) -> dict[str, str]:
        """Writes an object's bytes to ``out``; the answer's headers (lower-case names).

        Raises CommandError when the edge refuses or the transfer breaks off; the bytes written
        until then are right.
        """
        headers = {"Range": f"bytes={byte_range}"} if byte_range else {}
        async with self._session() as session, _reported(session.get(path, headers=headers)) as got:
            await _refused(got)
            try:
                async for chunk in got.content.iter_chunked(CHUNK_BYTES):
                    out.write(chunk)
                    advance(len(chunk))
            except aiohttp.ClientPayloadError as error:
                message = "the edge broke off the transfer; try again from the byte reached"
                raise CommandError(message, UNAVAILABLE) from error
            return {name.lower(): value for name, value in got.headers.items()}

    async def document(self, path: str) -> dict[str, object]:
        """A JSON document of the edge. Raises CommandError."""
        async with self._session() as session, _reported(session.get(path)) as response:
            return await _document(response)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            self.url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=120),
            auto_decompress=False,
        )


class _reported:  # noqa: N801 (used as a function would be)
    """An answer's context whose connection errors say what to do."""

    def __init__(self, request: aiohttp.client._RequestContextManager) -> None:
        self._request = request

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            return await self._request.__aenter__()
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            message = f"the edge does not answer ({error}): does the mesh run? try again"
            raise CommandError(message, UNAVAILABLE) from error

    async def __aexit__(self, *_: object) -> None:
        await self._request.__aexit__(None, None, None)


async def _document(response: aiohttp.ClientResponse) -> dict[str, object]:
    await _refused(response)
    document: dict[str, object] = orjson.loads(await response.read())
    return document


async def _refused(response: aiohttp.ClientResponse) -> None:
    if response.status < 400:
        return
    try:
        problem = orjson.loads(await response.read())
    except (orjson.JSONDecodeError, aiohttp.ClientError):
        problem = {}
    raise of_http(response.status, problem)


async def _chunks(path: Path, advance: Advance) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
            advance(len(chunk))
