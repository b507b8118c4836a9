"""The Unix socket at which nginx on the same machine finds an edge."""

from __future__ import annotations

import asyncio
import socket
import stat
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from services.edge.http.listener import bind_front
from tests.edge.conftest import Tenant, World, object_path, some_bytes
from tests.support.service_process import run_to_its_end, running

BURST = 300


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_it_serves_as_the_address_does_and_nobody_else(
    world: World, tenant: Tenant, front_socket: Path
) -> None:
    data = some_bytes(300_000)
    path = object_path(world.chain.add(data))
    async with world.edge(front_socket=front_socket) as edge:
        connector = aiohttp.UnixConnector(str(front_socket))
        async with aiohttp.ClientSession("http://edge.example", connector=connector) as session:
            for _ in range(3):  # a miss, and hits from memory
                async with session.get(path, headers=tenant.headers) as response:
                    assert (response.status, await response.read()) == (200, data)
        assert mode_of(front_socket) == 0o600
        await edge.edge.payments.drain(10.0)
        assert sum(await tenant.paid_bytes()) == 3 * len(data)


async def test_a_burst_of_connections_waits_to_be_taken(world: World, front_socket: Path) -> None:
    async with world.edge(front_socket=front_socket):
        with ExitStack() as callers:
            for _ in range(BURST):  # the edge takes none meanwhile: it shares this thread
                caller = callers.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(str(front_socket))


async def test_what_a_killed_process_left_is_replaced(world: World, front_socket: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(front_socket))
    async with world.edge(front_socket=front_socket):
        _, writer = await asyncio.open_unix_connection(front_socket)
        writer.close()


def test_where_it_cannot_be_made_that_is_said(front_socket: Path) -> None:
    for path in (front_socket.parent / "away" / "edge.socket", front_socket.parent):
        with pytest.raises(OSError, match=f"cannot listen on {path}: "):
            bind_front(path)


def test_a_file_that_is_no_socket_stays(front_socket: Path) -> None:
    front_socket.write_text("somebody needs this")
    with pytest.raises(OSError, match="cannot listen on"):
        bind_front(front_socket)
    assert front_socket.read_text() == "somebody needs this"


async def test_an_edge_that_cannot_have_it_says_so_and_ends(
    world: World, front_socket: Path, tmp_path: Path
) -> None:
    wrong = world.settings(front_socket=front_socket.parent / "away" / "edge.socket")
    settings = {name: str(value) for name, value in wrong.model_dump(exclude_unset=True).items()}
    status, output = await run_to_its_end("edge", settings)
    assert status == 1
    assert f"cannot listen on {settings['front_socket']}: No such file or directory" in output
    assert "Traceback" not in output
    async with running("edge", settings | {"front_socket": str(front_socket)}, tmp_path) as edge:
        assert await edge.stop() == 0
