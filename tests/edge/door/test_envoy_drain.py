"""An edge that is stopped while Envoy delivers: it is told of the end, and that is paid."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.edge.conftest import Tenant, World, until
from tests.support.deadline import DEADLINE_S
from tests.support.envoy_proxy import running_envoy
from tests.support.file_server import FileServer
from tests.support.raw_reader import open_reader

SIZE = 8 * 1024 * 1024
DRAIN_S = 2 * DEADLINE_S
"""Longer than any of these tests waits for anything."""


@pytest.mark.parametrize("configuration", ["envoy.yaml", "rate-limit.yaml"])
async def test_a_first_report_while_the_edge_is_drained_is_taken(
    world: World,
    files: FileServer,
    tenant: Tenant,
    tmp_path: Path,
    configuration: str,
) -> None:
    path = files.add("film", bytes(SIZE))
    async with (
        world.edge(unreported="release", drain_s=DRAIN_S) as edge,
        running_envoy(
            tmp_path, edge=edge.edge.grpc.address, files=files.address, configuration=configuration
        ) as proxy,
    ):
        reader = await open_reader("127.0.0.1", proxy.port, path, tenant.headers)
        stopping = asyncio.create_task(edge.stop())
        await until(lambda: edge.edge.grpc._pipeline._draining, "it is being drained")
        async with (
            aiohttp.ClientSession(proxy.url) as session,
            session.get(path, headers=tenant.headers) as refused,
        ):
            assert refused.status == 503
        await asyncio.to_thread(reader.read, SIZE)
        reader.close()
        await until(stopping.done, "it does not wait for anything else")
        await stopping
        assert (await tenant.balance()).held == 0, "settled before the process ended"
        assert await tenant.paid_bytes() == [SIZE]
