"""Two edges, one account, far more asked for than the account can pay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub

from services.cli.files import until
from services.cli.mesh.demo import price
from services.cli.mesh.local_mesh import NETWORK, LocalMesh
from services.cli.mesh.tenant import Tenant, grant_once, make_tenant
from services.cli.transfer import Edge
from services.credits import errors as credits_errors
from services.rpc.client import connect
from tests.support.ledger_audit import audit_account

if TYPE_CHECKING:
    from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceAsyncStub

DOWNLOADS = 200
FILE_BYTES = 256 * 1024
PAID_FOR = 60


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[LocalMesh]:
    unlimited = {"auth": {"concurrent_requests": "0"}}
    async with LocalMesh(tmp_path, overrides=unlimited) as mesh:
        yield mesh


async def _download(session: aiohttp.ClientSession, url: str, key: str) -> tuple[int, int]:
    headers = {"Authorization": f"Bearer {key}"}
    async with session.get(url, headers=headers) as answer:
        body = await answer.read()
        return answer.status, len(body) if answer.status == 200 else 0


async def _watch(credits: CreditServiceAsyncStub, account: str, end: asyncio.Event) -> int:
    looks = 0
    while not end.is_set():
        request = pb.GetBalanceRequest(account_id=account)
        balance = (await credits.GetBalance(request)).balance
        assert balance.available >= 0
        assert balance.held >= 0
        assert balance.granted == balance.available + balance.held + balance.spent
        looks += 1
    return looks


async def test_nothing_is_overspent_and_what_was_delivered_is_what_was_captured(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    tenant = await make_tenant(mesh, "overspender")
    file = tmp_path / "object.bin"
    file.write_bytes(bytes(range(256)) * (FILE_BYTES // 256))
    granted = price("upload", "miss", FILE_BYTES) + PAID_FOR * price("download", "hit", FILE_BYTES)
    await grant_once(mesh, tenant, granted)
    cid = await _published(mesh, tenant, file)
    async with connect(mesh.addresses["credits"], errors=credits_errors.ERRORS) as channel:
        credits, end = CreditServiceStub(channel), asyncio.Event()
        watcher = asyncio.create_task(_watch(credits, tenant.account_id, end))
        urls = [f"{url}/objects/{NETWORK}/{cid}" for url in mesh.edge_urls]
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            answers = await asyncio.gather(
                *(_download(session, urls[n % 2], tenant.key) for n in range(DOWNLOADS))
            )
        end.set()
        assert await watcher > 0
        audit = await audit_account(credits, tenant.account_id, until_settled=True)
    delivered = sum(count for _, count in answers)
    downloads = [entry for entry in audit.captures if entry.metered.meter == "download"]
    assert sum(entry.metered.quantity for entry in downloads) == delivered
    assert audit.usage_quantity("download") == delivered
    assert audit.balance.available >= 0
    assert {status for status, _ in answers} == {200, 402}
    assert audit.balance.available < price("download", "miss", FILE_BYTES), "more could be paid"


async def _published(mesh: LocalMesh, tenant: Tenant, file: Path) -> str:
    edge = Edge(mesh.edge_urls[0], tenant.key)
    answer = await edge.upload(
        file, network=NETWORK, name=file.name, request_id="upload-1", advance=lambda _: None
    )
    cid = str(answer["cid"])
    await until(edge, NETWORK, cid, "published")
    return cid
