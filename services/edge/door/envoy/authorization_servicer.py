"""Envoy's external authorisation: asked before each request, answered with a ticket or a refusal.

A request out of what is known and leased here is answered at once, without a task: this is the call
that there are most of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache

from tollmesh.envoy.v3 import authorization_pb2 as pb
from tollmesh.envoy.v3 import authorization_pb2_grpc as pb_grpc

from services.edge.admission import Client, credential_of
from services.edge.door.door import Door
from services.edge.door.envoy.streams import HEADER, Streams
from services.edge.door.requests import GuestRequest
from services.edge.door.tickets import BY_ENVOY, Ticket
from services.edge.http.problems import problem
from services.rpc.call import Call
from services.rpc.encoded import Encoded
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

_MOST_ANSWERS = 10_000
_LONGEST_TICKET = 1024
_DIGITS = 19
"""A number with fewer fits into 64 bits."""
_NAME = b"\x0a\x06" + TICKET_FIELD.encode()
_DENIED = 7
"""google.rpc.Code PERMISSION_DENIED; what is not OK, Envoy refuses."""


class AuthorizationServicer(pb_grpc.AuthorizationServiceServicer):
    """Admits for Envoy.

    Args:
        door: admits.
        streams: where requests are noted that Envoy may give up.
        keep_credentials: whether upstreams see the readers' credentials.
    """

    served_as = "envoy.service.auth.v3.Authorization"

    def __init__(self, door: Door, streams: Streams, *, keep_credentials: bool) -> None:
        self._door = door
        self._streams = streams
        self._removed = () if keep_credentials else CREDENTIAL_HEADERS
        self._answers: dict[str, bytes] = {}

    def Check(  # type: ignore[override]  # what is encoded already is an answer, too
        self, request: pb.CheckRequest, context: object
    ) -> pb.CheckResponse | Encoded | Later[pb.CheckResponse | Encoded]:
        """Whether Envoy may serve a request; a refusal is an answer, not an error."""
        call = Call.of(context)
        http = request.attributes.request.http
        credential, stream = credential_of(http.headers), http.headers.get(HEADER, "")
        guest = _guest_request(request.attributes, call.metadata)
        try:
            ticket = self._door.admit_now(Client(credential), guest)
        except ServiceError as error:
            return _denied(error, call)
        if ticket is not None:
            return self._allowed(ticket, stream, call)
        client = _client(credential, request.attributes)
        return Later(asyncio.ensure_future(self._waited(client, guest, stream, call)), _itself)

    async def _waited(
        self, client: Client, guest: GuestRequest, stream: str, call: Call
    ) -> pb.CheckResponse | Encoded:
        """The answer, when that takes other services."""
        try:
            ticket = await self._door.admit(client, guest)
        except ServiceError as error:
            return _denied(error, call)
        return self._allowed(ticket, stream, call)

    def _allowed(self, ticket: Ticket, stream: str, call: Call) -> Encoded:
        account_id = ticket.account_id
        call.log_fields["account_id"] = account_id
        answer = self._answers.get(account_id)
        if answer is None:
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            answer = self._answers[account_id] = self._answer(account_id)
        if not ticket.id:
            return Encoded(answer)
        if stream:
            self._streams.note(stream, ticket.id)
        # Messages that stand one behind the other are one with the fields of both.
        return Encoded(answer + ticket_metadata(ticket.id.encode()))

    def _answer(self, account_id: str) -> bytes:
        """What is the same in all answers about an account."""
        account = pb.HeaderValue(key=ACCOUNT_HEADER, value=account_id)
        ok = pb.OkHttpResponse(
            headers=[pb.HeaderValueOption(header=account)], headers_to_remove=self._removed
        )
        return pb.CheckResponse(ok_response=ok).SerializeToString()


def _client(credential: str, attributes: pb.AttributeContext) -> Client:
    """Who asks, with what only the auth service wants to know."""
    address = attributes.source.address.socket_address.address
    return Client(credential, address, attributes.request.http.headers.get("user-agent", ""))


def _guest_request(attributes: pb.AttributeContext, metadata: Mapping[str, str]) -> GuestRequest:
    http = attributes.request.http
    method = http.method
    # A GET has no body to measure; what is said of its answer is the route's.
    stated, meter = "" if method == "GET" else http.headers.get("content-length", ""), ""
    extensions = attributes.context_extensions
    if extensions:
        stated = extensions.get(ESTIMATE_EXTENSION, stated)
        meter = extensions.get(METER_EXTENSION, "")
    estimate = int(stated) if stated.isdecimal() and len(stated) < _DIGITS else None
    node = metadata.get(NODE_KEY, "")
    return GuestRequest(method, http.host, http.path, node, http.id, estimate, meter, BY_ENVOY)


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


def ticket_metadata(ticket: bytes) -> bytes:
    """A CheckResponse with the ticket as dynamic metadata, by hand: an eighth of what it costs."""
    return _before(len(ticket)) + ticket


@lru_cache(_LONGEST_TICKET)
def _before(size: int) -> bytes:
    """What stands before a ticket of this size.

    Field 4 is a Struct, its field 1 an entry: name (1) and value (2), whose field 3 is a text.
    """
    text = b"\x1a" + _varint(size)
    value = b"\x12" + _varint(len(text) + size) + text
    entry = b"\x0a" + _varint(len(_NAME) + len(value) + size) + _NAME + value
    return b"\x22" + _varint(len(entry) + size) + entry


def _varint(number: int) -> bytes:
    return bytes((number,)) if number < 128 else bytes((number & 127 | 128, number >> 7))


def _itself(response: pb.CheckResponse | Encoded) -> pb.CheckResponse | Encoded:
    return response
