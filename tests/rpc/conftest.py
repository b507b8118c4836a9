"""Real servers on free ports, and clients that know every error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from services.rpc.client import connect
from services.rpc.errors import ServiceError
from services.rpc.server import Limits, Server, Translation
from tests.support.echo_service import EchoServicer, pb_grpc

Stub = Any
"""The generated stub, whose class is made when the tests are imported."""
ServeEcho = Callable[..., AbstractAsyncContextManager[tuple[Stub, Server]]]


@asynccontextmanager
async def _echo(
    servicer: EchoServicer | None = None,
    *,
    errors: Iterable[type[ServiceError]] = (),
    translate: Translation | None = None,
    limits: Limits | None = None,
    drain_s: float = 0.2,
) -> AsyncIterator[tuple[Stub, Server]]:
    server = Server(
        listen="127.0.0.1:0",
        servicers=[servicer or EchoServicer()],
        translate=translate,
        limits=limits,
        drain_s=drain_s,
    )
    async with server, connect(server.address, errors=errors) as channel:
        yield pb_grpc.EchoServiceStub(channel), server


@pytest.fixture
def serve_echo() -> ServeEcho:
    """``async with serve_echo(EchoServicer(...)) as (stub, server):``"""
    return _echo
