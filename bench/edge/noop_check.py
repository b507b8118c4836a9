"""A Check that says yes to everything, served as any method of ours is, on either face.

With ``TICKETS`` it answers as a real one does, so that Envoy has as much to do for it: with an
account, headers to remove and a ticket; and it takes Envoy's access log, and does nothing with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tollmesh.envoy.v3 import access_log_pb2 as log_pb
from tollmesh.envoy.v3 import access_log_pb2_grpc as log_grpc
from tollmesh.envoy.v3 import authorization_pb2 as pb
from tollmesh.envoy.v3 import authorization_pb2_grpc as pb_grpc

from services.process.lifecycle import announce_ready, run
from services.process.settings import Field, ServerSettings, SettingsConfigDict
from services.rpc.server import Server


class CheckSettings(ServerSettings):
    """How it is served."""

    model_config = SettingsConfigDict(env_prefix="TOLLMESH_CHECK_")

    tickets: bool = Field(default=False, description="Whether it answers as a real one does.")


class Check(pb_grpc.AuthorizationServiceServicer):
    """Says yes."""

    served_as = "envoy.service.auth.v3.Authorization"

    def __init__(self, answer: pb.CheckResponse) -> None:
        self._answer = answer

    def Check(self, request: pb.CheckRequest, context: object) -> pb.CheckResponse:  # noqa: N802 (the contract's name)
        """Answers."""
        del request, context
        return self._answer


class AccessLog(log_grpc.AccessLogServiceServicer):
    """Reads."""

    served_as = "envoy.service.accesslog.v3.AccessLogService"

    async def StreamAccessLogs(  # noqa: N802 (the contract's name)
        self, request_iterator: AsyncIterator[log_pb.StreamAccessLogsRequest], context: object
    ) -> log_pb.StreamAccessLogsResponse:
        """To the end."""
        del context
        async for _ in request_iterator:
            pass
        return log_pb.StreamAccessLogsResponse()


def _answer(settings: CheckSettings) -> pb.CheckResponse:
    answer = pb.CheckResponse()
    if settings.tickets:
        account = pb.HeaderValue(key="tollmesh-account", value="acc_ljbgnyw2u5yz2asn")
        answer.ok_response.headers.add(header=account)
        answer.ok_response.headers_to_remove.extend(["authorization", "x-api-key"])
        answer.dynamic_metadata.fields["ticket"].string_value = "x" * 128
    return answer


async def serve(settings: CheckSettings, stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set."""
    servicers = [Check(_answer(settings)), AccessLog()]
    async with Server(listen=settings.listen, servicers=servicers, drain_s=0) as server:
        announce_ready(settings.ready_file, server.address)
        await stop.wait()


if __name__ == "__main__":
    run(CheckSettings, serve)
