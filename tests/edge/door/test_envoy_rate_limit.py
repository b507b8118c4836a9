"""The second way of reporting: Envoy's rate limit service, told at each request's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.edge.conftest import RunningEdge, Tenant, some_bytes, until
from tests.edge.door.test_envoy import paid_in_all
from tests.support.envoy_proxy import EnvoyProxy, running_envoy
from tests.support.file_server import FileServer
from tests.support.raw_reader import open_reader


@pytest.fixture
async def proxy(edge: RunningEdge, files: FileServer, tmp_path: Path) -> AsyncIterator[EnvoyProxy]:
    """An Envoy without an access log."""
    grpc = edge.edge.grpc.address
    async with running_envoy(
        tmp_path, edge=grpc, files=files.address, configuration="rate-limit.yaml"
    ) as server:
        yield server


async def test_what_a_reader_gets_is_paid_to_the_byte(
    reader: aiohttp.ClientSession, files: FileServer, tenant: Tenant
) -> None:
    data = some_bytes(300_001)
    path = files.add("film", data)
    async with reader.get(path, headers=tenant.headers) as response:
        assert await response.read() == data
    async with reader.get(path, headers={**tenant.headers, "Range": "bytes=7-8"}) as response:
        assert await response.read() == data[7:9]
    async with reader.get(path) as response:
        assert response.status == 401
    assert await paid_in_all(tenant, 2) == [2, 300_001]


async def test_a_download_that_is_broken_off_pays_for_what_was_sent(
    edge: RunningEdge, proxy: EnvoyProxy, files: FileServer, tenant: Tenant
) -> None:
    size = 4 * 1024 * 1024
    path = files.add("film", bytes(size))
    reader = await open_reader("127.0.0.1", proxy.port, path, tenant.headers)
    await asyncio.to_thread(reader.read, 100_000)
    received = await asyncio.to_thread(reader.arrived)
    reader.close(reset=True)
    await until(lambda: not edge.edge.door.open_tickets, "it is reported")
    [paid] = await tenant.paid_bytes()
    assert received <= paid < size


async def test_an_upload_pays_for_what_was_received(
    reader: aiohttp.ClientSession, tenant: Tenant
) -> None:
    async with reader.put("/new", data=bytes(70_000), headers=tenant.headers) as response:
        assert response.status == 201
    assert await paid_in_all(tenant, 1) == [70_000]
