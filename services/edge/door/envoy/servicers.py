"""What an edge serves to Envoys."""

from __future__ import annotations

from services.edge.door.door import Door
from services.edge.door.envoy.access_log_servicer import AccessLogServicer
from services.edge.door.envoy.authorization_servicer import AuthorizationServicer
from services.edge.door.envoy.rate_limit_servicer import RateLimitServicer


def envoy_servicers(door: Door, *, keep_credentials: bool) -> list[object]:
    """The servicers; ``keep_credentials``: whether upstreams see what readers identify with."""
    return [
        AuthorizationServicer(door, keep_credentials=keep_credentials),
        AccessLogServicer(door),
        RateLimitServicer(door),
    ]
