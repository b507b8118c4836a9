"""A real Caddy with ``deploy/caddy/Caddyfile``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.cli.mesh.processes import free_port
from tests.support.debian import program
from tests.support.listening import until_it_listens

_CADDYFILE = Path(__file__).parents[2] / "deploy" / "caddy" / "Caddyfile"


@dataclass
class Caddy:
    """A server that runs."""

    port: int
    capture_log: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def running_caddy(
    home: Path, *, edge: str, secret: str, origin: str, capture_log: Path
) -> AsyncIterator[Caddy]:
    """Runs Caddy until the block ends.

    Args:
        home: a directory for what it keeps.
        edge: its address.
        secret: what Caddy shows to the edge.
        origin: the server behind.
        capture_log: what the edge follows.
    """
    port = free_port()
    environment = {
        "TOLLMESH_SITE": f"http://:{port}",
        "TOLLMESH_EDGE": edge,
        "TOLLMESH_ORIGIN": origin,
        "TOLLMESH_FRONT_SECRET": secret,
        "TOLLMESH_CAPTURE_LOG": str(capture_log),
        "HOME": str(home),
    }
    own_log = home / "caddy.log"
    with own_log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(program("caddy"), "run", "--config", str(_CADDYFILE), "--adapter", "caddyfile"),
            env=os.environ | environment,
            stdout=output,
            stderr=output,
        )
    try:
        await until_it_listens(port, process, own_log)
        yield Caddy(port, capture_log)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
