"""PostgreSQL and Redis as Debian installs them, on free ports, with every commit synced to disk.

Each runs twice: on the core of the service in front of it, as the credit service has its store on
one core with it, and free to use every core, the load's too, in its favour.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from services.cli.mesh.processes import Child, free_port, start

POSTGRES_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def postgres_missing() -> str | None:
    """What to install, if PostgreSQL is not here."""
    return None if POSTGRES_BINARIES else "PostgreSQL is not installed: apt-get install postgresql"


def redis_missing() -> str | None:
    """What to install, if Redis is not here."""
    found = shutil.which("redis-server")
    return None if found else "Redis is not installed: apt-get install redis-server"


async def start_postgres(home: Path, prefix: Sequence[str]) -> tuple[Child, str]:
    """A new cluster, its command behind ``prefix``; gives its URL, too."""
    port = free_port()
    data = home / f"postgres-{port}"
    data.mkdir()
    binaries = POSTGRES_BINARIES[0]
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = pwd.getpwnam("postgres")
        os.chown(data, user.pw_uid, user.pw_gid)
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    initialise = [*as_user, str(binaries / "initdb"), "--pgdata", str(data), "--auth=trust"]
    subprocess.run([*initialise, "--username=tollmesh"], check=True, capture_output=True, cwd="/")  # noqa: ASYNC221 (nothing else happens meanwhile)
    command = [*as_user, str(binaries / "postgres"), "-D", str(data), "-p", str(port)]
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(data)}
    options |= {"shared_buffers": "256MB", "max_connections": "80", "fsync": "on"}
    settings = [f"--{name}={value}" for name, value in options.items()]
    child = start(data.name, [*prefix, *command, *settings], home, {})
    await child.listening(f"127.0.0.1:{port}")
    return child, f"postgresql://tollmesh@127.0.0.1:{port}/postgres"


async def start_redis(home: Path, prefix: Sequence[str]) -> tuple[Child, str]:
    """A new server, its command behind ``prefix``; gives its URL, too."""
    port = free_port()
    data = home / f"redis-{port}"
    data.mkdir()
    server = str(shutil.which("redis-server"))
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(data)]
    durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    child = start(data.name, [*prefix, *command, *durable], home, {})
    await child.listening(f"127.0.0.1:{port}")
    return child, f"redis://127.0.0.1:{port}/0"
