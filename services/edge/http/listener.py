"""The sockets that an edge's HTTP face listens with."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from pathlib import Path
from typing import Any

# How much the kernel may hold of a connection that it cannot send yet. Its default, up to 4 MiB,
# is memory for nothing when readers stall.
_UNSENT_BYTES = 128 * 1024
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)


def bind(listen: str) -> socket.socket:
    """Takes an address, ``host:port``; port 0 is a free one. Raises OSError when it is taken."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if _TCP_NOTSENT_LOWAT is not None:
            listener.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        listener.bind((host, int(port)))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {listen}: {error.strerror}") from error
    return listener


def bind_front(path: Path) -> socket.socket:
    """Makes a Unix socket for a front on this machine; one that is there already is replaced.

    Nobody but this process's user may connect. Raises OSError, also when it is no socket that is
    there.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            path.unlink()
        listener.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {path}: {error.strerror}") from error
    return listener


async def serve_front(
    listener: socket.socket,
    server: Any,  # noqa: ANN401 (uvicorn's, which server.py alone knows)
) -> asyncio.Server:
    """Serves it as a server serves its own addresses, but without TLS."""
    config, state = server.config, server.server_state
    make = partial(config.http_protocol_class, config=config, server_state=state, app_state={})
    # A Unix socket refuses at once whom it has no room to let wait.
    loop, backlog = asyncio.get_running_loop(), config.backlog
    return await loop.create_unix_server(make, sock=listener, backlog=backlog)
