"""A Check that says yes, on ``grpc.aio`` alone: ``python -m bench.edge.grpcio_check HOST:PORT``.

Written as the library's own examples are, under Envoy's name for the method.
"""

from __future__ import annotations

import asyncio
import sys

import grpc.aio
import uvloop
from tollmesh.envoy.v3 import authorization_pb2 as pb


async def check(request: pb.CheckRequest, context: object) -> pb.CheckResponse:
    """Answers."""
    del request, context
    return pb.CheckResponse()


async def main(address: str) -> None:
    """Serves until it is ended."""
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        check,
        request_deserializer=pb.CheckRequest.FromString,
        response_serializer=pb.CheckResponse.SerializeToString,
    )
    service = "envoy.service.auth.v3.Authorization"
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {"Check": method})]
    )
    server.add_insecure_port(address)
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
