"""A credit service whose Debit does nothing, served as any method of ours is, on either face.

What a real debit adds to it is the ledger and the store.
"""

from __future__ import annotations

import asyncio

from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import credits_pb2_grpc as pb_grpc

from services.credits.settings import CreditSettings
from services.process.lifecycle import announce_ready, run
from services.rpc.server import Limits, Server


class Noop(pb_grpc.CreditServiceServicer):
    """Takes nothing."""

    async def Debit(self, request: pb.DebitRequest, context: object) -> pb.DebitResponse:  # noqa: N802 (generated name)
        """Answers."""
        del request, context
        return pb.DebitResponse()


async def serve(settings: CreditSettings, stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set."""
    noop = Noop()  # type: ignore[abstract]  # its other methods are UNIMPLEMENTED
    limits = Limits(settings.max_concurrent_calls, settings.max_message_bytes)
    async with Server(listen=settings.listen, servicers=[noop], limits=limits) as server:
        announce_ready(settings.ready_file, server.address)
        await stop.wait()


if __name__ == "__main__":
    run(CreditSettings, serve)
