"""The Unix socket at which nginx on the same machine finds an edge."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import aiohttp
import pytest

from services.edge.http.listener import bind_front
from tests.edge.conftest import Tenant, World, object_path, some_bytes


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
            for _ in range(3):  # a miss, a hit that reserves, a hit out of a lease perhaps
                async with session.get(path, headers=tenant.headers) as response:
                    assert (response.status, await response.read()) == (200, data)
        assert mode_of(front_socket) == 0o600
        await edge.edge.payments.drain(10.0)
        assert sum(await tenant.paid_bytes()) == 3 * len(data)


async def test_what_a_killed_process_left_is_replaced(world: World, front_socket: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(front_socket))
    async with world.edge(front_socket=front_socket):
        _, writer = await asyncio.open_unix_connection(front_socket)
        writer.close()


def test_where_it_cannot_be_made_that_is_said(front_socket: Path) -> None:
    with pytest.raises(OSError, match="cannot listen on"):
        bind_front(front_socket.parent / "away" / "edge.socket")
