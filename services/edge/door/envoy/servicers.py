"""What an edge serves to Envoys."""

from __future__ import annotations

from services.edge.door.door import Door
from services.edge.door.envoy.access_log_servicer import AccessLogServicer
from services.edge.door.envoy.authorization_servicer import AuthorizationServicer
from services.edge.door.envoy.rate_limit_servicer import RateLimitServicer
from services.edge.door.envoy.streams import Streams


class Envoys:
    """The door, as Envoys know it.

    Args:
        door: admits and captures.
        keep_credentials: whether upstreams see what readers identify with.
    """

    def __init__(self, door: Door, *, keep_credentials: bool) -> None:
        self._door = door
        streams = Streams()
        self._access_log = AccessLogServicer(door, streams)
        self.reporters: list[object] = [self._access_log, RateLimitServicer(door)]
        """What Envoys call at the end of a delivery, also while the edge is being drained."""
        self.servicers: list[object] = [
            AuthorizationServicer(door, streams, keep_credentials=keep_credentials),
            *self.reporters,
        ]
        """For the server."""

    async def drain(self, timeout_s: float) -> None:
        """Ends the streams of access logs, once everything is reported or the time is over."""
        await self._door.wait_until_reported(timeout_s)
        self._access_log.end()
