"""An nginx that serves the files of a directory, as its authors mean it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.cli.mesh.processes import free_port
from tests.support.debian import program
from tests.support.listening import until_it_listens

_CONFIGURATION = """\
user root;
master_process off;
daemon off;
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{ }}
http {{
    {temporary}
    access_log off;
    keepalive_requests 1000000;
    large_client_header_buffers 8 64k;
    types {{ }}
    default_type {media_type};
    server {{
        listen 127.0.0.1:{port};
        root {root};
        etag on;
    }}
}}
"""


@asynccontextmanager
async def running_static_nginx(root: Path, home: Path, media_type: str) -> AsyncIterator[int]:
    """Serves the files below ``root`` until the block ends; gives the port.

    Args:
        root: what is served.
        home: for what nginx writes.
        media_type: of all files.
    """
    port = free_port()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {home}/{kind};" for kind in kinds)
    file = home / "nginx.conf"
    file.write_text(
        _CONFIGURATION.format(
            home=home, root=root, port=port, media_type=media_type, temporary=temporary
        )
    )
    process = await asyncio.create_subprocess_exec(
        program("nginx"), "-p", str(home), "-c", str(file), "-e", str(home / "error.log")
    )
    try:
        await until_it_listens(port, process, home / "error.log")
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
