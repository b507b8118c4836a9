"""The errors that any service may answer, on servers whose handlers misbehave on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from tollmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import credits_pb2_grpc
from tollmesh.edge.v1 import edge_pb2, edge_pb2_grpc

from services.chain.dag.cid import Cid
from services.cli.mesh.local_mesh import NETWORK, LocalMesh
from services.cli.mesh.processes import free_port
from services.rpc.server import Limits, Server
from services.store.errors import StoreUnavailableError
from services.store.translation import STORE_ERRORS
from tests.support.refusal import Refusal, refused

REQUEST = pb.GetBalanceRequest(account_id="someone")
SECRET = "/var/lib/secret and tm_local_key"


class Misbehaving(credits_pb2_grpc.CreditServiceServicer):
    """One method that waits, one that breaks, one whose store is gone."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()

    async def GetBalance(  # noqa: N802 (the contract's name)
        self, request: pb.GetBalanceRequest, context: object
    ) -> pb.GetBalanceResponse:
        del request, context
        self.entered.set()
        await asyncio.Event().wait()
        return pb.GetBalanceResponse()

    async def GetUsage(  # noqa: N802 (the contract's name)
        self, request: pb.GetUsageRequest, context: object
    ) -> pb.GetUsageResponse:
        del request, context
        raise KeyError(SECRET)

    async def Grant(  # noqa: N802 (the contract's name)
        self, request: pb.GrantRequest, context: object
    ) -> pb.GrantResponse:
        del request, context
        raise StoreUnavailableError(SECRET)


@asynccontextmanager
async def _served(calls: int = 10) -> AsyncIterator[tuple[Misbehaving, Any, Server]]:
    servicer = Misbehaving()  # type: ignore[abstract]  # it leaves out what is not tested
    server = Server(
        listen="127.0.0.1:0",
        servicers=[servicer],
        translate=STORE_ERRORS,
        limits=Limits(max_concurrent_calls=calls),
        drain_s=0.5,
    )
    async with server, grpc.aio.insecure_channel(server.address) as channel:
        yield servicer, credits_pb2_grpc.CreditServiceStub(channel), server


def _sound(refusal: Refusal, reason: str, code: grpc.StatusCode) -> None:
    assert refusal.reason == reason, refusal
    assert refusal.code is code
    assert refusal.domain == "tollmesh"
    assert refusal.leaks() is None


async def test_an_unforeseen_fault_is_internal_and_tells_only_its_incident() -> None:
    async with _served() as (_, stub, _):
        request = pb.GetUsageRequest(account_id="someone")
        refusal = await refused(stub.GetUsage(request))
    _sound(refusal, "INTERNAL", grpc.StatusCode.INTERNAL)
    assert refusal.metadata["incident_id"]
    assert SECRET not in refusal.message


async def test_too_many_calls_at_once_are_refused_early() -> None:
    async with _served(calls=1) as (servicer, stub, _):
        first = stub.GetBalance(REQUEST)
        await servicer.entered.wait()
        refusal = await refused(stub.GetBalance(REQUEST))
        first.cancel()
    _sound(refusal, "OVERLOADED", grpc.StatusCode.UNAVAILABLE)
    assert "RetryInfo" in refusal.details


async def test_a_draining_process_says_so() -> None:
    async with _served() as (servicer, stub, server):
        first = stub.GetBalance(REQUEST)
        await servicer.entered.wait()
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        refusal = await refused(stub.GetBalance(REQUEST))
        first.cancel()
        await draining
    _sound(refusal, "SHUTTING_DOWN", grpc.StatusCode.UNAVAILABLE)
    assert "RetryInfo" in refusal.details


async def test_a_store_that_fails_is_unavailable_and_keeps_its_detail_to_itself() -> None:
    async with _served() as (_, stub, _):
        request = pb.GrantRequest(request_id="r", account_id="someone", amount=1)
        refusal = await refused(stub.Grant(request))
    _sound(refusal, "STORE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE)
    assert "RetryInfo" in refusal.details
    assert SECRET not in refusal.message


async def _stat(mesh: LocalMesh) -> Refusal:
    async with grpc.aio.insecure_channel(mesh.addresses["edge-eu-grpc"]) as channel:
        stub: Any = edge_pb2_grpc.EdgeServiceStub(channel)
        request = edge_pb2.StatObjectRequest(network=NETWORK, cid=str(Cid.of(b"any")))
        return await refused(stub.StatObject(request, metadata=(("x-api-key", "some key"),)))


async def test_a_service_that_is_gone_is_named_a_dependency(tmp_path: Path) -> None:
    gone = {"edge": {"auth_target": f"127.0.0.1:{free_port()}"}}
    async with LocalMesh(tmp_path, overrides=gone) as mesh:
        refusal = await _stat(mesh)
    _sound(refusal, "DEPENDENCY_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE)
    assert "RetryInfo" in refusal.details


class Mute(auth_pb2_grpc.AuthServiceServicer):
    """Never answers."""

    async def Authorize(  # noqa: N802 (the contract's name)
        self, request: auth_pb2.AuthorizeRequest, context: object
    ) -> auth_pb2.AuthorizeResponse:
        del request, context
        await asyncio.Event().wait()
        return auth_pb2.AuthorizeResponse()


async def test_a_service_that_never_answers_is_named_a_dependency_too(tmp_path: Path) -> None:
    async with Server(listen="127.0.0.1:0", servicers=[Mute()], drain_s=0) as mute:
        never = {"edge": {"auth_target": mute.address}}
        async with LocalMesh(tmp_path, overrides=never) as mesh:
            refusal = await _stat(mesh)
    _sound(refusal, "DEPENDENCY_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE)
    assert "RetryInfo" in refusal.details
