"""Puts together what serves the origins of an edge."""

from __future__ import annotations

from services.edge.admission import Admission
from services.edge.credit.payments import Payments
from services.edge.http.cors import Cors
from services.edge.origins.proxy import OriginHandlers
from services.edge.origins.requests import Origin
from services.edge.origins.responses import Responses
from services.edge.settings import EdgeSettings


def open_origins(
    settings: EdgeSettings, admission: Admission, payments: Payments
) -> OriginHandlers | None:
    """The handler of ``/origins/``; None for an edge that has no origins. Raises OSError."""
    if not settings.origins:
        return None
    responses = Responses(
        settings.cache_dir / "origins",
        memory_bytes=settings.origin_memory_bytes,
        disk_bytes=settings.origin_disk_bytes,
        memory_object_bytes=settings.memory_object_bytes,
        max_object_bytes=settings.origin_object_bytes,
    )
    origins = {name: Origin(name, options) for name, options in settings.origins.items()}
    cors = Cors(settings.cors_origins)
    return OriginHandlers(origins, admission, payments, responses, cors, region=settings.region)
