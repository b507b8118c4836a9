"""A plain server of files, such as stands behind another proxy: it knows nothing of accounts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web


@dataclass
class FileServer:
    """A server that runs; what is put into ``directory`` is served, with ranges.

    A file has any number of names: what stands behind a ``*`` in its path is ignored.
    """

    directory: Path
    address: str = ""
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers (lower-case names) of each request."""
    failures: int = 0
    """So many requests to come are answered 503."""

    def add(self, name: str, data: bytes) -> str:
        """A file; its path."""
        (self.directory / name).write_bytes(data)
        return f"/{name}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Sends the file, takes uploads, and remembers who asked."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.method, request.path, headers))
        if self.failures:
            self.failures -= 1
            return web.Response(status=503, text="not now")
        if request.method not in {"GET", "HEAD"}:
            return web.Response(status=201, text=str(len(await request.read())))
        path = self.directory / request.match_info["name"].partition("*")[0]
        return web.FileResponse(path) if path.exists() else web.Response(status=404, text="no file")


@asynccontextmanager
async def running_files(directory: Path) -> AsyncIterator[FileServer]:
    """Serves a directory until the block ends."""
    await asyncio.to_thread(directory.mkdir, exist_ok=True)
    server = FileServer(directory)
    application = web.Application(client_max_size=64 * 1024 * 1024)
    application.router.add_route("*", "/{name:.*}", server.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.address = f"{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()
