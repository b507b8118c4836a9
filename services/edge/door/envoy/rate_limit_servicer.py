"""Envoy's rate limit service, told at a request's end how many bytes were sent.

The second way of reporting, for those who have no access log to spare: a route's rate limit with
``apply_on_stream_done``, whose descriptor names the ticket and whose ``hits_addend`` is the count.
"""

from __future__ import annotations

from tollmesh.envoy.v3 import rate_limit_pb2 as pb
from tollmesh.envoy.v3 import rate_limit_pb2_grpc as pb_grpc

from services.edge.door.door import Door
from services.edge.door.envoy.authorization_servicer import TICKET_FIELD

_OK = pb.ShouldRateLimitResponse(overall_code=pb.ShouldRateLimitResponse.CODE_OK)


class RateLimitServicer(pb_grpc.RateLimitServiceServicer):
    """Takes reports. Args: door: captures."""

    served_as = "envoy.service.ratelimit.v3.RateLimitService"

    def __init__(self, door: Door) -> None:
        self._door = door

    def ShouldRateLimit(
        self, request: pb.ShouldRateLimitRequest, context: object
    ) -> pb.ShouldRateLimitResponse:
        """Notes what was sent; never limits anything."""
        del context
        for descriptor in request.descriptors:
            counted = descriptor.HasField("hits_addend")
            total = descriptor.hits_addend.value if counted else request.hits_addend
            for entry in descriptor.entries:
                if entry.key == TICKET_FIELD:
                    self._door.capture(entry.value, total, final=True)
        return _OK
