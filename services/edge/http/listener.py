"""The socket that an edge's HTTP face listens with."""

from __future__ import annotations

import socket

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
