"""nginx as a peer: one worker, on the servers' core, with a configuration of one's own."""

from __future__ import annotations

from pathlib import Path

from bench.edge.stage import Server, Stage
from tests.support.debian import program

STATIC = """\
        location / {{
            root {root};
        }}
"""
"""Files as they are."""

_FRAME = """\
daemon off;
user root;
worker_processes 1;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{
    worker_connections 4096;
}}
http {{
    access_log {access_log};
    sendfile on;
    tcp_nopush on;
    default_type application/octet-stream;
    keepalive_requests 100000000;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{
        listen {address};
{locations}    }}
}}
"""


async def nginx(
    stage: Stage, name: str, locations: str, *, access_log: str = "off", aside: bool = False
) -> Server:
    """Starts nginx with these ``location`` blocks; ``aside``: on the load's core."""
    home = stage.home / name
    home.mkdir()
    address = stage.address()
    configuration = home / "nginx.conf"
    text = _FRAME.format(home=home, address=address, locations=locations, access_log=access_log)
    configuration.write_text(text)
    command = [program("nginx"), "-e", f"{home}/error.log", "-p", f"{home}", "-c"]
    begin = stage.support if aside else stage.serve
    return await begin(name, [*command, f"{configuration}"], address, {})


async def static(stage: Stage, root: Path, *, aside: bool = False) -> Server:
    """Nginx that sends the files under ``root``."""
    return await nginx(stage, "nginx-static", STATIC.format(root=root), aside=aside)
