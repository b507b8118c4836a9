"""Envoy's external authorisation: asked before each request, answered with a ticket or a refusal.

A request out of what is known and leased here is answered at once, without a task: this is the call
that there are most of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

from tollmesh.envoy.v3 import authorization_pb2 as pb
from tollmesh.envoy.v3 import authorization_pb2_grpc as pb_grpc

from services.edge.admission import Client, credential_of
from services.edge.door.door import Door
from services.edge.door.requests import GuestRequest
from services.edge.door.tickets import Ticket
from services.edge.http.problems import problem
from services.rpc.call import Call
from services.rpc.errors import ServiceError
from services.rpc.later import Later

NODE_KEY = "tollmesh-node"
"""Metadata of a call: which Envoy it is."""
ACCOUNT_HEADER = "tollmesh-account"
"""Tells the upstream whose request it is; whatever the reader sent under this name is replaced."""
CREDENTIAL_HEADERS = ("authorization", "x-api-key")
TICKET_FIELD = "ticket"
"""Of the dynamic metadata."""
ESTIMATE_EXTENSION, METER_EXTENSION = "estimate_bytes", "meter"
"""What a route's configuration may say of its requests (context_extensions)."""

_DENIED = 7
"""google.rpc.Code PERMISSION_DENIED; what is not OK, Envoy refuses."""


class AuthorizationServicer(pb_grpc.AuthorizationServiceServicer):
    """Admits for Envoy.

    Args:
        door: admits.
        keep_credentials: whether upstreams see the readers' credentials.
    """

    served_as = "envoy.service.auth.v3.Authorization"

    def __init__(self, door: Door, *, keep_credentials: bool) -> None:
        self._door = door
        self._removed = () if keep_credentials else CREDENTIAL_HEADERS

    def Check(
        self, request: pb.CheckRequest, context: object
    ) -> pb.CheckResponse | Awaitable[pb.CheckResponse]:
        """Whether Envoy may serve a request; a refusal is an answer, not an error."""
        call = Call.of(context)
        client, guest = _asked(request.attributes, call.metadata)
        try:
            ticket = self._door.admit_now(client, guest)
        except ServiceError as error:
            return _denied(error, call)
        if ticket is not None:
            return self._allowed(ticket, call)
        return Later(asyncio.ensure_future(self._waited(client, guest, call)), _itself)

    async def _waited(self, client: Client, guest: GuestRequest, call: Call) -> pb.CheckResponse:
        """The answer, when that takes other services."""
        try:
            ticket = await self._door.admit(client, guest)
        except ServiceError as error:
            return _denied(error, call)
        return self._allowed(ticket, call)

    def _allowed(self, ticket: Ticket, call: Call) -> pb.CheckResponse:
        call.log_fields["account_id"] = ticket.account_id
        response = pb.CheckResponse()
        ok = response.ok_response
        header = ok.headers.add().header
        header.key = ACCOUNT_HEADER
        header.value = ticket.account_id
        ok.headers_to_remove.extend(self._removed)
        if ticket.id:
            response.dynamic_metadata.fields[TICKET_FIELD].string_value = ticket.id
        return response


def _asked(
    attributes: pb.AttributeContext, metadata: Mapping[str, str]
) -> tuple[Client, GuestRequest]:
    http, headers = attributes.request.http, attributes.request.http.headers
    extensions = attributes.context_extensions
    client = Client(
        credential_of(headers),
        attributes.source.address.socket_address.address,
        headers.get("user-agent", ""),
    )
    # A GET has no body to measure; what is said of its answer is the route's.
    stated = extensions.get(ESTIMATE_EXTENSION) or (
        None if http.method == "GET" else headers.get("content-length")
    )
    estimate = int(stated) if stated and stated.isdecimal() else None
    return client, GuestRequest(
        http.method,
        http.host,
        http.path,
        metadata.get(NODE_KEY, ""),
        http.id,
        estimate,
        extensions.get(METER_EXTENSION, ""),
    )


def _denied(error: ServiceError, call: Call) -> pb.CheckResponse:
    """The problem that the reader gets, as from the edge itself."""
    call.note(reason=error.reason_name())
    answer = problem(error, instance=call.request_id)
    headers = [
        pb.HeaderValueOption(header=pb.HeaderValue(key=name.decode(), value=value.decode()))
        for name, value in answer.headers
        if name != b"content-length"  # Envoy's own
    ]
    return pb.CheckResponse(
        status=pb.Status(code=_DENIED),
        denied_response=pb.DeniedHttpResponse(
            status=pb.HttpStatus(code=answer.status), headers=headers, body=answer.body.decode()
        ),
    )


def _itself(response: pb.CheckResponse) -> pb.CheckResponse:
    return response
