"""Envoy's rate limit service, told at a request's end how many bytes were sent.

The second way of reporting, for those who have no access log to spare: rate limits of a route with
``apply_on_stream_done``, whose descriptors name the ticket (as ``sent`` or as ``received``) and
whose ``hits_addend`` is the count. Unlike the access log it does not tell what was no success.
"""

from __future__ import annotations

from tollmesh.envoy.v3 import rate_limit_pb2 as pb
from tollmesh.envoy.v3 import rate_limit_pb2_grpc as pb_grpc

from services.edge.door.door import Door
from services.edge.door.tickets import is_of_envoy, meter_of
from services.process.logs import get_logger

SENT, RECEIVED = "sent", "received"
_KEYS = {"upload": RECEIVED}
"""What counts of a meter, if not what was sent."""

log = get_logger(__name__)

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
            for entry in descriptor.entries:
                if is_of_envoy(entry.value) and entry.key == _KEYS.get(meter_of(entry.value), SENT):
                    self._take(entry.value, descriptor)
        return _OK

    def _take(self, ticket_id: str, descriptor: pb.RateLimitDescriptor) -> None:
        if descriptor.HasField("hits_addend"):
            self._door.capture(ticket_id, descriptor.hits_addend.value, final=True)
        else:
            # A rate limit that stands where Envoy ignores hits_addend: the ticket is not free then,
            # but one that nobody has reported on.
            log.error("report_without_count")
