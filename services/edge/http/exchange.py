"""One HTTP request and its answer, as handlers see them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from email.utils import formatdate
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import parse_qs

from services.chain.errors import UploadIncompleteError
from services.edge.admission import Client, credential_of
from services.edge.http.connection import Connection
from services.edge.http.problems import BodyTimeoutError, Headers, problem
from services.rpc.errors import InvalidArgumentError, ServiceError

BODY_IDLE_S = 30.0
"""How long a request's body may be silent before the client is given up."""
_FINISH_S = 30.0

NO_SNIFF = (b"x-content-type-options", b"nosniff")


class Exchange:
    """A request, and what is sent in answer to it."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 (ASGI's own)
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.raw_path: bytes = scope["raw_path"]
        """The path as it was sent, still encoded."""
        self.raw_query: bytes = scope["query_string"]
        """What stood behind the question mark."""
        self.fields: Headers = scope["headers"]
        """All header fields as they were sent, in order, with lower-case names."""
        self.http_version: str = scope["http_version"]
        self.connection: Connection = scope["state"]["connection"]
        self.headers: dict[str, str] = _joined(scope["headers"])
        """Header fields by lower-case name; the values of a repeated one joined by commas."""
        self.is_from_front = False
        """Whether a server of the operator's asks for somebody else, and says for whom."""
        self.cors: Headers = []
        """What every answer tells browsers of pages that may read it, unless it says so itself."""
        self.status = 0
        """Of the answer; 0 until it begins."""
        self.sent_bytes = 0
        """Of the answer's body."""
        self.request_id = ""
        """Names this request in logs and answers."""
        self.log_fields: dict[str, object] = {}
        self._peer: tuple[str, int] | None = scope["client"]
        self._receive = receive
        self._send = send

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's parameters; of repeated ones the last."""
        if not self.raw_query:
            return {}
        text = self.raw_query.decode("latin-1")
        try:
            fields = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=100)
        except ValueError as error:
            raise InvalidArgumentError("The query is not well-formed.") from error
        return {name: values[-1] for name, values in fields.items()}

    @property
    def peer(self) -> str:
        """The client's address, ``host:port``."""
        return f"{self._peer[0]}:{self._peer[1]}" if self._peer else ""

    @cached_property
    def client(self) -> Client:
        """Who asks: the reader, also where a front asks for them."""
        headers, address = self.headers, self._peer[0] if self._peer else ""
        if self.is_from_front:
            told = headers.get("x-real-ip") or headers.get("x-forwarded-for", "").partition(",")[0]
            address = told.strip() or address
        return Client(
            credential=credential_of(headers),
            ip_address=address,
            user_agent=headers.get("user-agent", ""),
        )

    def inform(self, status: int, reason: bytes, headers: Headers) -> None:
        """Sends an interim answer (1xx) ahead of the answer; HTTP/1.0 does not know them."""
        if self.http_version == "1.0" or self.status:
            return
        lines = [b"HTTP/1.1 %d %s\r\n" % (status, reason)]
        lines += [b"%s: %s\r\n" % header for header in headers]
        self.connection.write(b"".join(lines) + b"\r\n")

    async def start(self, status: int, headers: Headers, *, dated: bool = False) -> None:
        """Sends the head of the answer; ``dated`` when a Date is among the headers already."""
        self.status = status
        if not dated:
            headers.append((b"date", date_of(int(time.time()))))
        if not any(name == b"access-control-allow-origin" for name, _ in headers):
            headers.extend(self.cors)
        if self.request_id:
            headers.append((b"x-request-id", self.request_id.encode("ascii")))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, data: bytes | memoryview, *, more: bool = False) -> None:
        """Sends a part of the body; waits while the client is slower than we are."""
        self.sent_bytes += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def respond(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Sends a whole answer."""
        await self.start(status, headers)
        await self.send(b"" if self.method == "HEAD" else body)

    async def respond_json(
        self, status: int, document: dict[str, object], headers: Headers | None = None
    ) -> None:
        """Sends a JSON document, which no cache keeps."""
        body = json.dumps(document, ensure_ascii=False).encode()
        fields: Headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            NO_SNIFF,
        ]
        await self.respond(status, fields + (headers or []), body)

    async def refuse(self, error: ServiceError) -> None:
        """Sends a problem. Behind a body that was not read, the connection ends."""
        answer = problem(error, instance=self.request_id)
        headers = [*answer.headers, NO_SNIFF]
        if self.method == "POST":
            headers.append((b"connection", b"close"))
        await self.respond(answer.status, headers, answer.body)

    async def break_off(self) -> None:
        """Ends an answer that cannot be finished, so that the client sees that it is not whole."""
        with suppress(OSError):
            await self.connection.finish(_FINISH_S)

    async def body(self) -> AsyncIterator[bytes]:
        """The request's body, in pieces.

        Raises UploadIncompleteError when the client goes away, BodyTimeoutError when it is silent.
        """
        more = True
        while more:
            try:
                async with asyncio.timeout(BODY_IDLE_S):
                    message = await self._receive()
            except TimeoutError as error:
                raise BodyTimeoutError from error
            if message["type"] != "http.request":
                raise UploadIncompleteError("The connection ended before the body did.")
            more = message["more_body"]
            if message["body"]:
                yield message["body"]


def _joined(fields: Headers) -> dict[str, str]:
    """Fields by name. Several of one name are one list (RFC 9110, section 5.3)."""
    joined: dict[str, str] = {}
    for name_bytes, value_bytes in fields:
        name, value = name_bytes.decode("latin-1"), value_bytes.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


@lru_cache(1)
def date_of(now: int) -> bytes:
    """A moment as Date has it; the same for all answers of a second."""
    return formatdate(now, usegmt=True).encode("ascii")
