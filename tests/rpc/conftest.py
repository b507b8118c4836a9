"""Real servers on free ports, and clients that know every error.

What a server promises is checked through the wire on each face: ``echo`` is a process of its own,
shared by all tests of its face. ``serve_echo`` is a server inside the test's own process, for tests
that look inside.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import pytest

from services.rpc.client import connect
from services.rpc.errors import ServiceError
from services.rpc.server import Limits, Server, Translation
from tests.support.echo_server import EchoServer, running_echo
from tests.support.echo_service import EchoServicer, pb_grpc

FACES = ("grpcio", "envoy")

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


@pytest.fixture(scope="session", params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    """Which server face."""
    return str(request.param)


@pytest.fixture(scope="session")
def echo(face: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EchoServer]:
    """The echo service on this face, shared by all tests."""
    with running_echo(face, tmp_path_factory.mktemp(face) / "shared") as server:
        yield server


@pytest.fixture
async def stub(echo: EchoServer) -> AsyncIterator[Stub]:
    """Calls it as services call each other."""
    async with echo.stub() as stub:
        yield stub


@pytest.fixture
async def plain_stub(echo: EchoServer) -> AsyncIterator[Stub]:
    """Calls it as any gRPC client does, over a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(echo.address, options) as channel:
        yield pb_grpc.EchoServiceStub(channel)


@pytest.fixture
def key() -> str:
    """Names this test's calls."""
    return secrets.token_hex(4)
