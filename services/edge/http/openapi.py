"""The OpenAPI description of this edge, at ``/openapi.json``: what its routes are, in one document.

Format: OpenAPI Specification 3.1.0 (https://spec.openapis.org/oas/v3.1.0). To describe handlers in
a new module, write ``services/edge/http/descriptions/NAME.py`` and add it to ``_DESCRIBED``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from copy import copy

from services.edge.http.conditions import not_modified
from services.edge.http.descriptions import door, downloads, operations, origins, transfers
from services.edge.http.descriptions.components import (
    HEADERS,
    PARAMETERS,
    SCHEMAS,
    SECURITY_SCHEMES,
)
from services.edge.http.descriptions.parts import Json, Paths, answer, problems
from services.edge.http.exchange import NO_SNIFF, Exchange
from services.edge.http.problems import Headers

MEDIA_TYPE = b"application/openapi+json;version=3.1"
PATH = "/openapi.json"

_OWN: Paths = {
    PATH: {
        "get": {
            "operationId": "getDescription",
            "summary": "This document.",
            "tags": ["health"],
            "responses": {
                **problems(),
                "200": answer(
                    "This document.",
                    {"application/openapi+json": {"schema": {"type": "object"}}},
                    "Cache-Control",
                ),
            },
        }
    }
}
_DESCRIBED: tuple[Paths, ...] = (
    _OWN,
    door.PATHS,
    downloads.PATHS,
    operations.PATHS,
    origins.PATHS,
    transfers.PATHS,
)


def described() -> dict[tuple[str, str], Json]:
    """Every described operation, by method (upper case) and path template."""
    return {
        (method.upper(), path): operation
        for paths in _DESCRIBED
        for path, operations in paths.items()
        for method, operation in operations.items()
    }


def document(routes: Iterable[tuple[str, str]], title: str) -> Json:
    """The document of an edge with these routes: (method, path template)."""
    operations, paths = described(), dict[str, Json]()
    for method, path in routes:
        operation = operations.get((method, path))
        if operation is None and method == "HEAD":
            operation = _head_of(operations.get(("GET", path)))
        if operation is not None:
            paths.setdefault(path, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": "1",
            "summary": "Admits, caches, delivers and bills.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "schemas": SCHEMAS,
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def _head_of(operation: Json | None) -> Json | None:
    """What HEAD answers where GET is described: the same without a body."""
    if operation is None:
        return None
    responses = {}
    for status, response in operation["responses"].items():
        responses[status] = copy(response)
        responses[status].pop("content", None)
    name = operation["operationId"]
    return operation | {"operationId": f"head{name[0].upper()}{name[1:]}", "responses": responses}


class DescriptionHandlers:
    """The handler of ``/openapi.json``, which needs no key.

    Args:
        routes: those of this edge, asked for at the first request.
        region: the edge's, for the title.
    """

    def __init__(self, routes: Iterable[tuple[str, str]], region: str) -> None:
        self._routes = routes
        self._title = f"Tollmesh edge {region}"
        self._body = b""
        self._tag = ""

    async def get_description(self, exchange: Exchange) -> None:
        """``/openapi.json``."""
        if not self._body:
            self._body = json.dumps(document(self._routes, self._title)).encode()
            self._tag = hashlib.sha256(self._body).hexdigest()[:32]
        headers: Headers = [
            (b"cache-control", b"no-cache"),
            (b"etag", b'"%b"' % self._tag.encode("ascii")),
            (b"access-control-allow-origin", b"*"),
        ]
        if not_modified(exchange.headers, self._tag):
            await exchange.respond(304, headers)
            return
        headers += [
            (b"content-type", MEDIA_TYPE),
            (b"content-length", b"%d" % len(self._body)),
            NO_SNIFF,
        ]
        await exchange.respond(200, headers, self._body)
