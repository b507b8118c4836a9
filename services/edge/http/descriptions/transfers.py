"""Describes ``services.edge.http.transfers``."""

from __future__ import annotations

from services.edge.http.descriptions.components import EXAMPLE_CID
from services.edge.http.descriptions.parts import (
    ALWAYS,
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

_UPLOADED = {
    "network": "evm-local",
    "cid": EXAMPLE_CID,
    "size_bytes": 1024,
    "state": "pending",
    "amount": 3,
    "currency": "credit",
}
_PUBLICATION = {
    "network": "evm-local",
    "cid": EXAMPLE_CID,
    "state": "published",
    "size_bytes": 1024,
    "nodes_total": 1,
    "nodes_published": 1,
    "nodes_finalized": 0,
    "update_time": "2026-01-31T12:00:00.000Z",
    "message": "",
}
_PINNED = {
    "network": "evm-local",
    "cid": EXAMPLE_CID,
    "size_bytes": 1024,
    "amount": 3,
    "currency": "credit",
    "paid_until": "2026-03-02T12:00:00.000Z",
}

_UPLOAD: Json = {
    "operationId": "postObject",
    "summary": "Uploads the body as a file.",
    "description": "The size is stated by Content-Length. With Idempotency-Key it may be repeated.",
    "tags": ["uploads"],
    "parameters": [
        *parameters("network", "idempotency-key"),
        {
            "in": "query",
            "name": "name",
            "description": "The file's name; else that of Content-Disposition.",
            "schema": {"type": "string", "maxLength": 255},
            "example": "photo.jpg",
        },
    ],
    "requestBody": {
        "description": "The file.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    "responses": {
        "201": json_answer("Taken, and paid for.", "Uploaded", _UPLOADED, "Location"),
        **problems(
            *REFUSALS,
            *UNAVAILABLE,
            "INSUFFICIENT_CREDIT",
            "NETWORK_NOT_FOUND",
            "NETWORK_UNAVAILABLE",
            "OBJECT_TOO_LARGE",
            "REQUEST_ID_REUSED",
            "UPLOAD_INCOMPLETE",
            http_only={411: "Content-Length is missing."},
        ),
    },
    **KEYED,
}


def _status(operation_id: str, summary: str, *path_parameters: str) -> Json:
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["uploads"],
        "parameters": parameters(*path_parameters),
        "responses": {
            "200": json_answer("How far it has come.", "Publication", _PUBLICATION),
            **problems(
                *REFUSALS,
                *UNAVAILABLE,
                "CID_INVALID",
                "NETWORK_NOT_FOUND",
                "NETWORK_UNAVAILABLE",
                "PUBLICATION_NOT_FOUND",
            ),
        },
        **KEYED,
    }


_PIN: Json = {
    "operationId": "putPin",
    "summary": "Keeps an object on this edge.",
    "tags": ["pins"],
    "parameters": parameters("network", "cid", "idempotency-key"),
    "responses": {
        "200": json_answer("It was pinned already. Free.", "Pinned", _PINNED | {"amount": 0}),
        "201": json_answer("It is pinned now, and paid for.", "Pinned", _PINNED),
        **problems(
            *REFUSALS,
            *UNAVAILABLE,
            "CID_INVALID",
            "INSUFFICIENT_CREDIT",
            "NETWORK_NOT_FOUND",
            "NETWORK_UNAVAILABLE",
            "OBJECT_BANNED",
            "OBJECT_CORRUPT",
            "OBJECT_NOT_FOUND",
            "PIN_CAPACITY_EXHAUSTED",
            "REQUEST_ID_REUSED",
            "STORE_UNAVAILABLE",
        ),
    },
    **KEYED,
}

_UNPIN: Json = {
    "operationId": "deletePin",
    "summary": "Lets go of an object.",
    "tags": ["pins"],
    "parameters": parameters("network", "cid", "idempotency-key"),
    "responses": {
        "204": answer("It is not pinned any more."),
        **problems(
            *REFUSALS,
            *UNAVAILABLE,
            "CID_INVALID",
            "NETWORK_NOT_FOUND",
            "PIN_NOT_FOUND",
            "REQUEST_ID_REUSED",
            "STORE_UNAVAILABLE",
        ),
    },
    **KEYED,
}


def _health(operation_id: str, summary: str, status: str, *refused: str) -> Json:
    responses = {
        "200": json_answer(summary, "Health", {"status": status}),
        **{code: json_answer("It drains.", "Health", {"status": "draining"}) for code in refused},
    }
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["health"],
        "responses": {**problems(*ALWAYS[:2]), **responses},
    }


PATHS: Paths = {
    "/objects/{network}": {"post": _UPLOAD},
    "/objects/{network}/{cid}/status": {
        "get": _status("getStatus", "How far an upload has come.", "network", "cid")
    },
    "/{cid}/status": {
        "get": _status("getDefaultStatus", "The same, on the default network.", "cid")
    },
    "/pins/{network}/{cid}": {"put": _PIN, "delete": _UNPIN},
    "/healthz": {"get": _health("healthz", "The process answers.", "alive")},
    "/readyz": {"get": _health("readyz", "New requests are welcome.", "ready", "503")},
}
