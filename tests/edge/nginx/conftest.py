"""An edge behind which, or beside which, a real nginx or Caddy delivers."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from tests.edge.conftest import Answer, RunningEdge, Tenant, World
from tests.support.caddy import Caddy, running_caddy
from tests.support.nginx import Nginx, capture_log, running_nginx

PREFIX = "/tollmesh-cache/"
"""Where accelerator.conf has the cache."""
SECRET = "a-secret-of-this-test-0123456789"


@dataclass
class Front:
    """nginx, the edge that it asks, and a client of nginx."""

    nginx: Nginx | Caddy
    edge: RunningEdge
    session: aiohttp.ClientSession

    async def get(
        self, path: str, tenant: Tenant | None = None, method: str = "GET", **headers: str
    ) -> Answer:
        """One request. Header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        fields = {**(tenant.headers if tenant else {}), **named}
        async with self.session.request(method, path, headers=fields) as response:
            return Answer(response.status, response.headers, await response.read())

    async def many(self, path: str, tenant: Tenant, count: int, at_once: int) -> set[int]:
        """Many requests, so many at once; the statuses that they had."""
        statuses: set[int] = set()

        async def some(number: int) -> None:
            for _ in range(number):
                statuses.add((await self.get(path, tenant)).status)

        await asyncio.gather(*(some(count // at_once) for _ in range(at_once)))
        return statuses


@dataclass
class Origin:
    """A server of files that knows nothing of Tollmesh."""

    address: str
    directory: Path
    seen: list[web.Request]

    def put(self, name: str, data: bytes) -> str:
        """Adds a file; its path."""
        (self.directory / name).write_bytes(data)
        return f"/{name}"


@pytest.fixture
async def origin(tmp_path: Path) -> AsyncIterator[Origin]:
    directory = tmp_path / "origin"
    directory.mkdir()
    seen: list[web.Request] = []

    @web.middleware
    async def noting(request: web.Request, handler: Handler) -> web.StreamResponse:
        seen.append(request)
        return await handler(request)

    async def take(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    application = web.Application(middlewares=[noting], client_max_size=2**30)
    application.router.add_post("/taken", take)
    application.router.add_static("/", directory)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield Origin(f"{host}:{port}", directory, seen)
    await runner.cleanup()


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "front.secret"
    file.write_text(SECRET + "\n")
    return file


@pytest.fixture
def nginx_home(tmp_path: Path) -> Path:
    home = tmp_path / "nginx"
    home.mkdir()
    return home


@pytest.fixture
def front_settings(secret_file: Path, nginx_home: Path) -> dict[str, Any]:
    """Of an edge that nginx asks."""
    return {"front_secret_file": secret_file, "capture_log": capture_log(nginx_home)}


@asynccontextmanager
async def behind_nginx(
    world: World, origin: Origin, nginx_home: Path, front_settings: dict[str, Any]
) -> AsyncIterator[Front]:
    """front.conf before the origin, and an edge."""
    async with (
        world.edge(**front_settings) as edge,
        running_nginx(
            "front.conf",
            nginx_home,
            edge=edge.edge.http.address,
            secret=SECRET,
            origin=origin.address,
        ) as nginx,
        client_of(nginx, edge) as front,
    ):
        yield front


@asynccontextmanager
async def behind_caddy(
    world: World, origin: Origin, home: Path, front_settings: dict[str, Any]
) -> AsyncIterator[Front]:
    """The Caddyfile before the origin, and an edge."""
    async with (
        world.edge(**front_settings) as edge,
        running_caddy(
            home,
            edge=edge.edge.http.address,
            secret=SECRET,
            origin=origin.address,
            capture_log=front_settings["capture_log"],
        ) as caddy,
        client_of(caddy, edge) as front,
    ):
        yield front


@pytest.fixture
async def front(
    world: World, origin: Origin, nginx_home: Path, front_settings: dict[str, Any]
) -> AsyncIterator[Front]:
    """nginx before a server that it asks the edge for."""
    async with behind_nginx(world, origin, nginx_home, front_settings) as front:
        yield front


@pytest.fixture(params=[behind_nginx, behind_caddy], ids=["nginx", "caddy"])
async def either_front(
    request: pytest.FixtureRequest,
    world: World,
    origin: Origin,
    nginx_home: Path,
    front_settings: dict[str, Any],
) -> AsyncIterator[Front]:
    """nginx, then Caddy: what must hold for both."""
    async with request.param(world, origin, nginx_home, front_settings) as front:
        yield front


@pytest.fixture
def front_socket() -> Iterator[Path]:
    """Where nginx finds an edge; its name is short, as names of sockets must be (unix(7))."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "edge.socket"


@pytest.fixture
async def accelerated(
    world: World, nginx_home: Path, front_settings: dict[str, Any], front_socket: Path
) -> AsyncIterator[Front]:
    """accelerator.conf before an edge, which it asks over a Unix socket."""
    async with (
        world.edge(**front_settings, accel_prefix=PREFIX, front_socket=front_socket) as edge,
        running_nginx(
            "accelerator.conf",
            nginx_home,
            edge=f"unix:{front_socket}",
            secret=SECRET,
            cache_dir=world.directory / "edge",
        ) as nginx,
        client_of(nginx, edge) as front,
    ):
        yield front


@asynccontextmanager
async def client_of(nginx: Nginx | Caddy, edge: RunningEdge) -> AsyncIterator[Front]:
    """A client of nginx."""
    async with aiohttp.ClientSession(
        f"http://{nginx.address}",
        auto_decompress=False,
        connector=aiohttp.TCPConnector(limit=0),
    ) as session:
        yield Front(nginx, edge, session)
