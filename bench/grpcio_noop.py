"""A Debit that does nothing, on ``grpc.aio`` alone: ``python -m bench.grpcio_noop HOST:PORT``.

Written as the library's own examples are: a generated servicer, a parsed request, an empty answer.
"""

from __future__ import annotations

import asyncio
import sys

import grpc.aio
import uvloop
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import credits_pb2_grpc as pb_grpc


class Noop(pb_grpc.CreditServiceServicer):
    """Takes nothing."""

    async def Debit(self, request: pb.DebitRequest, context: object) -> pb.DebitResponse:  # noqa: N802 (generated name)
        """Answers."""
        del request, context
        return pb.DebitResponse()


async def main(address: str) -> None:
    """Serves until it is ended."""
    server = grpc.aio.server()
    pb_grpc.add_CreditServiceServicer_to_server(Noop(), server)  # type: ignore[abstract]  # one is called
    server.add_insecure_port(address)
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
