"""Describes ``services.edge.origins``: what an edge has below ``/origins/``, if it fronts any."""

from __future__ import annotations

from services.edge.http.descriptions.parts import (
    KEYED,
    REFUSALS,
    UNAVAILABLE,
    Json,
    Paths,
    answer,
    problems,
)

_PARAMETERS: list[Json] = [
    {
        "in": "path",
        "name": "name",
        "required": True,
        "description": "An origin of the settings.",
        "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,31}$"},
        "example": "site",
    },
    {
        "in": "path",
        "name": "path",
        "required": True,
        "description": "The path at the origin: any number of segments, and a query as it is.",
        "schema": {"type": "string", "minLength": 1},
        "example": "index.html",
    },
]
_METHODS = ("get", "post", "put", "patch", "delete")


def _operation(method: str) -> Json:
    found: Json = {
        "operationId": f"{method}Origin",
        "summary": "What an HTTP origin answers, through a shared cache (RFC 9111).",
        "tags": ["origins"],
        "parameters": _PARAMETERS,
        "responses": {
            "default": answer(
                "The origin's own answer, whatever its status.",
                {"*/*": {"schema": {"type": "string", "format": "binary"}}},
                "Cache-Status",
            ),
            **problems(
                *REFUSALS,
                *UNAVAILABLE,
                "INSUFFICIENT_CREDIT",
                http_only={
                    404: "there is no such origin, or it says so",
                    502: "The origin cannot be reached, or its answer is broken off.",
                    504: "the origin does not answer in time, or nothing is stored",
                    508: "The request has been here before (Via).",
                },
            ),
        },
        **KEYED,
    }
    if method in {"post", "put", "patch"}:
        binary = {"schema": {"type": "string", "format": "binary"}}
        found["requestBody"] = {"content": {"application/octet-stream": binary}}
    # An origin's own 404 is no problem document of ours.
    for response in found["responses"].values():
        response["content"] = {"*/*": {"schema": {}}} | response.get("content", {})
    return found


PATHS: Paths = {"/origins/{name}/{path}": {method: _operation(method) for method in _METHODS}}
