"""A real nginx with the configurations of ``deploy/nginx``, and site files of the test's own."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.cli.mesh.processes import free_port
from tests.support.deadline import DEADLINE_S
from tests.support.debian import program
from tests.support.listening import until_it_listens

DEPLOYED = Path(__file__).parents[2] / "deploy" / "nginx"
_KEPT = "keepalive 64; keepalive_requests 100000;"


@dataclass
class Nginx:
    """A server that runs."""

    home: Path
    port: int
    process: asyncio.subprocess.Process

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def capture_log(self) -> Path:
        """What the edge follows."""
        return capture_log(self.home)

    def rotate(self, number: int) -> None:
        """Renames the log and has nginx make a new one, as logrotate does."""
        self.capture_log.rename(f"{self.capture_log}.{number}")
        self.process.send_signal(signal.SIGUSR1)

    def errors(self) -> str:
        return (self.home / "error.log").read_text()


def capture_log(home: Path) -> Path:
    """Where an nginx of this home writes what the edge follows."""
    return home / "tollmesh.log"


@asynccontextmanager
async def running_nginx(
    configuration: str,
    home: Path,
    *,
    edge: str,
    secret: str,
    origin: str = "127.0.0.1:9",
    cache_dir: Path | None = None,
) -> AsyncIterator[Nginx]:
    """Runs nginx with a file of ``deploy/nginx`` until the block ends.

    Args:
        configuration: the file's name.
        home: nginx's prefix; the files are copied here.
        edge: its address.
        secret: what nginx shows to the edge.
        origin: the server behind ``front.conf``.
        cache_dir: of the edge, for ``accelerator.conf``.
    """
    port = free_port()
    lay_out(home, port, edge, secret, origin, cache_dir or home)
    process = await asyncio.create_subprocess_exec(
        program("nginx"),
        *("-p", str(home), "-c", str(home / configuration)),
        *("-e", str(home / "error.log"), "-g", "daemon off;"),
    )
    server = Nginx(home, port, process)
    try:
        await until_it_listens(port, process, home / "error.log")
        yield server
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGQUIT)
            try:
                await asyncio.wait_for(process.wait(), DEADLINE_S)
            except TimeoutError:
                process.terminate()
                await process.wait()


def lay_out(home: Path, port: int, edge: str, secret: str, origin: str, cache_dir: Path) -> None:
    """The deployed files as they are, and what an operator writes in site/."""
    shutil.copytree(DEPLOYED, home, dirs_exist_ok=True)
    temporary = "\n".join(
        f"{kind}_temp_path {home}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    files = {
        "main.conf": f"user root;\nworker_processes 1;\npid {home}/nginx.pid;\n"
        f"error_log {home}/error.log warn;\n",
        "http.conf": f"upstream tollmesh_edge {{ server {edge}; {_KEPT} }}\n"
        f"upstream tollmesh_origin {{ server {origin}; {_KEPT} }}\n"
        f'map "" $tollmesh_secret {{ default "{secret}"; }}\n{temporary}\n',
        "server.conf": f"listen 127.0.0.1:{port} sndbuf=256k;\nkeepalive_requests 100000000;\n"
        f"access_log {capture_log(home)} tollmesh if=$tollmesh_reported;\n",
        "cache.conf": f"alias {cache_dir}/objects/;\n",
    }
    for name, text in files.items():
        (home / "site" / name).write_text(text)
