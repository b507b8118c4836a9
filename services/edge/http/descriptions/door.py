"""Describes ``services.edge.http.door``."""

from __future__ import annotations

from services.edge.http.descriptions.parts import (
    KEYED,
    REFUSALS,
    UNAVAILABLE,
    Json,
    Paths,
    answer,
    json_answer,
    parameters,
    problems,
)

_NOT_A_FRONT = {403: "Tollmesh-Front does not hold this edge's secret."}
_TICKET = (
    "Cache-Control",
    "Tollmesh-Ticket",
    "Tollmesh-Account",
    "Tollmesh-Cost",
    "Tollmesh-Currency",
    "Tollmesh-Available",
)


def _leave(operation_id: str, summary: str, words: str, responses: Json) -> Json:
    return {
        "operationId": operation_id,
        "summary": summary,
        "description": "For servers that know this edge's secret. The reader's request is told by "
        f"{words}-Method, -URI and -Host.",
        "tags": ["door"],
        "parameters": parameters("tollmesh-front"),
        "responses": {"204": answer("Admitted; deliver it.", None, *_TICKET), **responses},
        **KEYED,
    }


_REFUSED = problems(
    *REFUSALS, *UNAVAILABLE, "INSUFFICIENT_CREDIT", "METER_UNKNOWN", http_only=_NOT_A_FRONT
)

PATHS: Paths = {
    "/door/authorize": {
        "get": _leave(
            "authorizeGuest", "Leave to serve a reader's request.", "X-Forwarded", _REFUSED
        )
    },
    "/door/auth-request": {
        "get": _leave(
            "authorizeGuestOfNginx",
            "The same for nginx: status and problem of a refusal stand in Tollmesh-Status and "
            "Tollmesh-Problem.",
            "X-Original",
            {
                **problems("CREDENTIAL_MISSING", http_only=_NOT_A_FRONT),
                "401": answer("Refused, 401.", None, "Tollmesh-Status", "Tollmesh-Problem"),
            },
        )
    },
    "/door/captures": {
        "post": {
            "operationId": "reportDeliveries",
            "summary": "Takes lines of a front's access log: what was sent on each ticket.",
            "tags": ["door"],
            "parameters": parameters("tollmesh-front"),
            "requestBody": {
                "description": "Lines as deploy/nginx/log.conf writes them, or Caddy's.",
                "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
            },
            "responses": {
                "200": json_answer("Taken.", "Reported", {"outcomes": ["settled", "repeated"]}),
                **problems("UPLOAD_INCOMPLETE", http_only=_NOT_A_FRONT),
            },
        }
    },
}
