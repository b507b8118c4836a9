"""A credit service whose Debit does nothing, served as any method of ours is, on either face.

It is a plain function that names what is waited for, like the real one: what a real debit adds to
it is the ledger and the store.
"""

from __future__ import annotations

import asyncio

from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import credits_pb2_grpc as pb_grpc

from bench.serving import serve_until
from services.credits.settings import CreditSettings
from services.process.lifecycle import run
from services.rpc.later import Later


class Noop(pb_grpc.CreditServiceServicer):
    """Takes nothing."""

    def __init__(self) -> None:
        self._nothing = asyncio.get_running_loop().create_future()
        self._nothing.set_result(None)

    def Debit(  # noqa: N802 (generated name)
        self, request: pb.DebitRequest, context: object
    ) -> Later[pb.DebitResponse]:
        """Answers."""
        del request, context
        return Later(self._nothing, _answer)


def _answer(_: object) -> pb.DebitResponse:
    return pb.DebitResponse()


async def serve(settings: CreditSettings, stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set."""
    noop = Noop()  # type: ignore[abstract]  # its other methods are UNIMPLEMENTED
    await serve_until(noop, settings, stop)


if __name__ == "__main__":
    run(CreditSettings, serve)
