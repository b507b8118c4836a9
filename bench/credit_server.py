"""The credit service, as it is, with two more methods on its server: no-ops, the ceilings.

One is a raw handler of ``grpc.aio``: no parsing, no pipeline, no log line. What a debit adds to it
is everything that Tollmesh does. The other is a method of a contract, served as any is, that does
nothing: what a debit adds to it is the ledger and the store.
"""

from __future__ import annotations

import os
import runpy
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from tollmesh.auth.v1 import auth_pb2 as pb
from tollmesh.auth.v1 import auth_pb2_grpc as pb_grpc

from services.rpc import server as rpc

NOOP = "/tollmesh.bench.Noop/Call"
SERVED_NOOP = "/tollmesh.auth.v1.AccountService/GetAccount"

_plain_server = grpc.aio.server


async def _noop(_request: bytes, _context: object) -> bytes:
    return b""


def _server_with_noop(*arguments: Any, **options: Any) -> grpc.aio.Server:  # noqa: ANN401 (passed on)
    server = _plain_server(*arguments, **options)
    _, service, method = NOOP.split("/")
    handler: Any = grpc.unary_unary_rpc_method_handler(_noop)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    return server


class _NoopServicer(pb_grpc.AccountServiceServicer):
    """Knows no account."""

    async def GetAccount(  # noqa: N802 (generated name)
        self, request: pb.GetAccountRequest, context: object
    ) -> pb.GetAccountResponse:
        del request, context
        return pb.GetAccountResponse()


class _Server(rpc.Server):
    """Serves the no-op beside what it is told to."""

    def __init__(self, *, servicers: Sequence[object], **options: Any) -> None:  # noqa: ANN401 (passed on)
        noop = _NoopServicer()  # type: ignore[abstract]  # its other methods are UNIMPLEMENTED
        super().__init__(servicers=[*servicers, noop], **options)


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(os.environ.get("BENCH_CORE", "0"))})
    grpc.aio.server = _server_with_noop
    rpc.Server = _Server  # type: ignore[misc]  # for the service that imports it next
    runpy.run_module("services.credits", run_name="__main__")
