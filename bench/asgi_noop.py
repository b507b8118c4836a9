"""A gRPC method that does nothing, as a bare ASGI application: the ceiling of the envoy face."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

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
