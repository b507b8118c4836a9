"""A whole mesh with small limits, so that every refusal can be provoked."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from tollmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from tollmesh.chain.v1 import chain_pb2_grpc
from tollmesh.credits.v1 import credits_pb2_grpc, leases_pb2_grpc
from tollmesh.edge.v1 import edge_pb2_grpc

from services.cli.mesh.local_mesh import INBOX_ADDRESS, LocalMesh
from services.cli.mesh.processes import free_port
from services.cli.mesh.tenant import Tenant, grant_once, make_tenant

MAX_OBJECT_BYTES = 16 * 1024 * 1024
PIN_BYTES = 1024
CONCURRENT_REQUESTS = 2


@dataclass
class Wire:
    """Plain stubs to every service of the mesh, and accounts to use them with."""

    mesh: LocalMesh
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def channel(self, name: str) -> grpc.aio.Channel:
        channel = grpc.aio.insecure_channel(self.mesh.addresses[name])
        self.channels.append(channel)
        return channel

    @property
    def auth(self) -> Any:  # noqa: ANN401 (the async stub)
        return auth_pb2_grpc.AuthServiceStub(self.channel("auth"))

    @property
    def accounts(self) -> Any:  # noqa: ANN401 (the async stub)
        return auth_pb2_grpc.AccountServiceStub(self.channel("auth"))

    @property
    def credits(self) -> Any:  # noqa: ANN401 (the async stub)
        return credits_pb2_grpc.CreditServiceStub(self.channel("credits"))

    @property
    def leases(self) -> Any:  # noqa: ANN401 (the async stub)
        return leases_pb2_grpc.LeaseServiceStub(self.channel("credits"))

    @property
    def chain(self) -> Any:  # noqa: ANN401 (the async stub)
        return chain_pb2_grpc.ChainServiceStub(self.channel("chain"))

    @property
    def edge(self) -> Any:  # noqa: ANN401 (the async stub)
        return edge_pb2_grpc.EdgeServiceStub(self.channel("edge-eu-grpc"))

    async def tenant(self, credit: int = 0) -> Tenant:
        tenant = await make_tenant(self.mesh, secrets.token_hex(4))
        if credit:
            await grant_once(self.mesh, tenant, credit)
        return tenant

    async def key(self, tenant: Tenant, **fields: Any) -> auth_pb2.CreateApiKeyResponse:  # noqa: ANN401 (the request's own)
        request = auth_pb2.CreateApiKeyRequest(
            request_id=secrets.token_hex(8),
            account_id=tenant.account_id,
            **{"scopes": [auth_pb2.SCOPE_DOWNLOAD], **fields},
        )
        answer = await self.accounts.CreateApiKey(request)
        assert isinstance(answer, auth_pb2.CreateApiKeyResponse)
        return answer


def paying(tenant: Tenant) -> tuple[tuple[str, str], ...]:
    """The metadata that names the account at an edge."""
    return (("authorization", f"Bearer {tenant.key}"),)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wire]:
    dead = {
        "kind": "evm",
        "endpoints": [f"http://127.0.0.1:{free_port()}"],
        "inbox_address": INBOX_ADDRESS,
    }
    small = {
        "auth": {"concurrent_requests": str(CONCURRENT_REQUESTS)},
        "edge": {"pin_bytes": str(PIN_BYTES)},
        "chain": {"max_object_bytes": str(MAX_OBJECT_BYTES)},
    }
    mesh = LocalMesh(tmp_path_factory.mktemp("mesh"), overrides=small, more_networks={"dead": dead})
    async with mesh:
        wire = Wire(mesh)
        yield wire
        for channel in wire.channels:
            await channel.close()
