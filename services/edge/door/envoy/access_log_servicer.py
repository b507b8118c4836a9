"""Envoy's access log: how many bytes of each answer it sent, while it sends and at the end.

What counts: bytes of the body that Envoy has handed to its connection with the reader, of answers
with a status of success; of uploads, bytes of the body that it has received. Headers and framing
are not counted, and neither is an error page: nobody asked for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tollmesh.envoy.v3 import access_log_pb2 as pb
from tollmesh.envoy.v3 import access_log_pb2_grpc as pb_grpc

from services.edge.door.door import Door
from services.edge.door.envoy.authorization_servicer import TICKET_FIELD
from services.edge.door.envoy.streams import HEADER, Streams
from services.edge.door.tickets import is_of_envoy, meter_of

FILTER = "envoy.filters.http.ext_authz"
"""Under whose name the ticket stands in an entry's metadata."""


class AccessLogServicer(pb_grpc.AccessLogServiceServicer):
    """Takes reports.

    Args:
        door: captures.
        streams: where requests were noted whose tickets Envoy may never have seen.
    """

    served_as = "envoy.service.accesslog.v3.AccessLogService"

    def __init__(self, door: Door, streams: Streams) -> None:
        self._door = door
        self._streams = streams
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Ends all streams, of which Envoy ends none by itself."""
        self._ended.set()

    async def StreamAccessLogs(
        self, request_iterator: AsyncIterator[pb.StreamAccessLogsRequest], context: object
    ) -> pb.StreamAccessLogsResponse:
        """Takes entries as long as Envoy sends any, and this process wants to hear them."""
        del context
        reading = asyncio.ensure_future(self._read(request_iterator))
        ending = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait((reading, ending), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                await reading
        finally:
            reading.cancel()
            ending.cancel()
        return pb.StreamAccessLogsResponse()

    async def _read(self, requests: AsyncIterator[pb.StreamAccessLogsRequest]) -> None:
        async for request in requests:
            for entry in request.http_logs.log_entry:
                self._take(entry)

    def _take(self, entry: pb.HttpEntry) -> None:
        common = entry.common_properties
        final = not common.intermediate_log_entry
        stream = entry.request.request_headers.get(HEADER, "")
        noted = self._streams.take(stream) if final and stream else ""
        found = common.metadata.filter_metadata.get(FILTER)
        ticket_id = "" if found is None else found.fields[TICKET_FIELD].string_value
        if is_of_envoy(ticket_id):
            self._door.capture(ticket_id, sent_bytes(ticket_id, entry), final=final)
        elif noted and not ticket_id:
            self._door.capture(noted, 0, final=True)  # Envoy never saw the ticket


def sent_bytes(ticket_id: str, entry: pb.HttpEntry) -> int:
    """What is to be paid of a request so far."""
    response = entry.response
    if not 200 <= response.response_code.value < 300:
        return 0
    if meter_of(ticket_id) == "upload":
        return entry.request.request_body_bytes
    return response.response_body_bytes
