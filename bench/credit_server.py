"""The credit service, as it is, with one more method on its server: a no-op, the ceiling.

The no-op is a raw handler of ``grpc.aio``: no parsing, no pipeline, no log line. What a debit adds
to it is everything that Tollmesh does.
"""

from __future__ import annotations

import os
import runpy
from typing import Any

import grpc
import grpc.aio

NOOP = "/tollmesh.bench.Noop/Call"

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


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(os.environ.get("BENCH_CORE", "0"))})
    grpc.aio.server = _server_with_noop
    runpy.run_module("services.credits", run_name="__main__")
