"""The edge's process: ``python -m services.edge``, settings from TOLLMESH_EDGE_..."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tollmesh.auth.v1.auth_pb2_grpc import AuthServiceStub
from tollmesh.chain.v1.chain_pb2_grpc import ChainServiceStub
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub
from tollmesh.credits.v1.leases_pb2_grpc import LeaseServiceStub

from services.auth import errors as auth_errors
from services.chain import errors as chain_errors
from services.credits import errors as credits_errors
from services.edge.edge import Edge, Services
from services.edge.settings import EdgeSettings
from services.process.lifecycle import announce_ready, run
from services.rpc.client import connect
from services.rpc.tls import ClientTls


def main() -> None:
    """Serves until SIGTERM."""
    run(EdgeSettings, serve)


async def serve(settings: EdgeSettings, stop: asyncio.Event) -> None:
    """Connects to the services behind, serves both faces until ``stop`` is set, and drains."""
    tls = ClientTls.of(settings)
    async with AsyncExitStack() as channels:
        auth, credits, chain = [
            await channels.enter_async_context(connect(target, errors=errors, tls=tls))
            for target, errors in (
                (settings.auth_target, auth_errors.ERRORS),
                (settings.credits_target, credits_errors.ERRORS),
                (settings.chain_target, chain_errors.ERRORS),
            )
        ]
        services = Services(
            AuthServiceStub(auth),
            CreditServiceStub(credits),
            LeaseServiceStub(credits),
            ChainServiceStub(chain),
        )
        edge = await Edge.open(settings, services)
        try:
            await edge.start()
            announce_ready(settings.grpc_ready_file, edge.grpc.address)
            announce_ready(settings.ready_file, edge.http.address)
            await stop.wait()
        finally:
            await edge.drain()


if __name__ == "__main__":
    main()
