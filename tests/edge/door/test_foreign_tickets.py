"""Tickets that readers may see (Caddy's) are reported by log lines alone, not by whoever calls."""

from __future__ import annotations

from pathlib import Path

import grpc
from tollmesh.envoy.v3 import access_log_pb2 as log_pb
from tollmesh.envoy.v3 import rate_limit_pb2 as limit_pb

from services.edge.door.door import CaptureOutcome
from tests.edge.conftest import RunningEdge, Tenant, World
from tests.edge.door.test_envoy import paid_in_all

ACCESS_LOG = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
RATE_LIMIT = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
SECRET = "a-secret-of-the-tests-0123456789"


async def test_a_reader_who_calls_as_envoys_do_tells_nothing_of_them(
    world: World, tenant: Tenant, tmp_path: Path
) -> None:
    secret_file = tmp_path / "front.secret"
    secret_file.write_text(SECRET)
    async with world.edge(front_secret_file=secret_file) as edge:
        ticket = await _ticket(edge, tenant)
        for claimed in (ticket, f"e{ticket}"):
            await _tell_by_access_log(edge, claimed)
            await _tell_by_rate_limit(edge, claimed)
        assert edge.edge.door.open_tickets == 1, "it is as it was"
        assert edge.edge.door.capture(ticket, 70, final=True) is CaptureOutcome.SETTLED
        assert await paid_in_all(tenant, 1) == [70]


async def _ticket(edge: RunningEdge, tenant: Tenant) -> str:
    """Leave for a download, as nginx or Caddy get it."""
    words = {"X-Original-Method": "GET", "X-Original-URI": "/film"}
    headers = {**tenant.headers, **words, "Tollmesh-Front": SECRET}
    async with edge.session.get("/door/auth-request", headers=headers) as answer:
        return answer.headers["Tollmesh-Ticket"]


async def _tell_by_access_log(edge: RunningEdge, ticket: str) -> None:
    """That nothing was sent."""
    entry = log_pb.HttpEntry()
    metadata = entry.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"]
    metadata["ticket"] = ticket
    request = log_pb.StreamAccessLogsRequest()
    request.http_logs.log_entry.append(entry)
    async with grpc.aio.insecure_channel(edge.edge.grpc.address) as channel:
        tell = channel.stream_unary(
            ACCESS_LOG,
            request_serializer=log_pb.StreamAccessLogsRequest.SerializeToString,
            response_deserializer=log_pb.StreamAccessLogsResponse.FromString,
        )
        await tell(iter([request]))


async def _tell_by_rate_limit(edge: RunningEdge, ticket: str) -> None:
    """The same."""
    request = limit_pb.ShouldRateLimitRequest()
    descriptor = request.descriptors.add()
    descriptor.entries.add(key="sent", value=ticket)
    descriptor.hits_addend.value = 0
    async with grpc.aio.insecure_channel(edge.edge.grpc.address) as channel:
        tell = channel.unary_unary(
            RATE_LIMIT,
            request_serializer=limit_pb.ShouldRateLimitRequest.SerializeToString,
            response_deserializer=limit_pb.ShouldRateLimitResponse.FromString,
        )
        await tell(request)
