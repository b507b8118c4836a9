"""An edge that is a process, on each face, with a real Envoy before it."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from tollmesh.credits.v1 import credits_pb2

from services.cli.mesh.processes import free_port
from tests.edge.conftest import Tenant, World, some_bytes, until
from tests.support.envoy_proxy import running_envoy
from tests.support.file_server import FileServer
from tests.support.ledger_audit import audit_account
from tests.support.service_process import running

DRAIN_S = 600.0


@pytest.mark.parametrize("face", ["grpcio", "envoy"])
async def test_it_serves_both_and_ends_when_all_is_reported(
    world: World, files: FileServer, tenant: Tenant, tmp_path: Path, face: str
) -> None:
    data = some_bytes(100_000)
    path, cid = files.add("film", data), world.chain.add(data)
    address = f"127.0.0.1:{free_port()}"
    terms = {"grpc_listen": address, "face": face, "lease_credits": 1_000_000, "drain_s": DRAIN_S}
    terms["lease_settle_s"] = 0.1
    known = world.settings(**terms).model_dump(exclude_unset=True)
    settings = {name: str(value) for name, value in known.items()}
    async with (
        running_envoy(tmp_path, edge=address, files=files.address) as proxy,
        running("edge", settings, tmp_path) as edge,
        aiohttp.ClientSession() as session,
    ):
        for _ in range(20):
            async with session.get(f"{proxy.url}{path}", headers=tenant.headers) as response:
                assert await response.read() == data
        await until(lambda: _has_used(tenant, 20 * len(data)), "all is reported, and settled")
        url = f"http://{edge.address}/file/{cid}"
        async with session.get(url, headers=tenant.headers) as response:
            assert await response.read() == data
        assert await edge.stop() == 0, "it does not wait for Envoy to end a stream"
    audit = await audit_account(world.credits, tenant.account_id, until_settled=True)
    assert audit.usage_quantity("download") == 21 * len(data)


async def _has_used(tenant: Tenant, count: int) -> bool:
    request = credits_pb2.GetUsageRequest(account_id=tenant.account_id)
    answer = await tenant.credits.GetUsage(request)
    return sum(line.quantity for line in answer.usage) == count
