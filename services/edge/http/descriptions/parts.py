"""What descriptions are made of: parameters, headers, schemas, and the errors that may come.

Format: OpenAPI Specification 3.1.0, sections 4.8.10 (Operation Object) to 4.8.24 (Schema Object).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from tollmesh.errors.v1 import errors_pb2 as reasons

from services.edge.http.problems import STATUS

Json = dict[str, Any]
Paths = Mapping[str, Mapping[str, Json]]

ALWAYS = ("INVALID_ARGUMENT", "INTERNAL", "OVERLOADED", "SHUTTING_DOWN")
"""What any request may be answered with."""
UNAVAILABLE = ("DEPENDENCY_UNAVAILABLE", "DEADLINE_EXCEEDED", "STORE_UNAVAILABLE")
"""What a request may be answered with that another service has to do with."""
REFUSALS = (
    "CREDENTIAL_MISSING",
    "CREDENTIAL_MALFORMED",
    "CREDENTIAL_UNKNOWN",
    "CREDENTIAL_EXPIRED",
    "CREDENTIAL_REVOKED",
    "SCOPE_MISSING",
    "ACCOUNT_SUSPENDED",
    "ACCOUNT_CLOSED",
    "RATE_LIMITED",
)
"""Why a caller is not let in."""
KEYED: Json = {"security": [{"bearer": []}, {"apiKey": []}]}
"""For operations that take a key; without it an operation is for everyone."""

CID_PATTERN = "^bafkr6i[a-h][a-z2-7]{50}[aeimquy4]$"


def ref(kind: str, name: str) -> Json:
    """A reference to a component: ``ref("schemas", "Problem")``."""
    return {"$ref": f"#/components/{kind}/{name}"}


def parameters(*names: str) -> list[Json]:
    """References to parameters that stand in ``components``."""
    return [ref("parameters", name) for name in names]


def headers(*names: str) -> dict[str, Json]:
    """Headers of an answer, which stand in ``components``."""
    return {name: ref("headers", name) for name in names}


def answer(description: str, content: Mapping[str, Json] | None = None, *header_names: str) -> Json:
    """A Response Object. Every answer of a handler has X-Request-Id."""
    found: Json = {
        "description": description,
        "headers": headers("X-Request-Id", *header_names),
    }
    if content is not None:
        found["content"] = dict(content)
    return found


def json_answer(description: str, schema: str, example: object, *header_names: str) -> Json:
    """An answer with a JSON document; ``schema`` stands in ``components``."""
    content = {"application/json": {"schema": ref("schemas", schema), "example": example}}
    return answer(description, content, "Cache-Control", *header_names)


def problems(*names: str, http_only: Mapping[int, str] | None = None) -> dict[str, Json]:
    """The answers that are errors, by status.

    Args:
        names: the reasons (of ErrorReason), besides ALWAYS.
        http_only: of statuses that only HTTP has (411, say), what they mean; INVALID_ARGUMENT.
    """
    by_status: dict[int, list[str]] = defaultdict(list)
    for name in dict.fromkeys((*names, *ALWAYS)):
        by_status[STATUS[reasons.ErrorReason.Value(f"ERROR_REASON_{name}")]].append(name)
    meanings = {status: _listed(found) for status, found in by_status.items()}
    for status, meaning in (http_only or {}).items():
        meanings[status] = f"{meanings[status]}; {meaning}" if status in meanings else meaning
    return {
        str(status): _problem(status, meaning, by_status.get(status, ["INVALID_ARGUMENT"]))
        for status, meaning in sorted(meanings.items())
    }


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _problem(status: int, meaning: str, names: list[str]) -> Json:
    reason = names[0]
    example = {
        "type": f"urn:tollmesh:error:{reason}",
        "title": reason.replace("_", " ").capitalize(),
        "status": status,
        "detail": f"{HTTPStatus(status).phrase}.",
        "reason": reason,
        "metadata": {},
        "instance": "urn:tollmesh:request:7c0c1f0e5b6c4d0f",
    }
    content = {
        "application/problem+json": {"schema": ref("schemas", "Problem"), "example": example}
    }
    more = {401: ("WWW-Authenticate",), 405: ("Allow",), 416: ("Content-Range",), 451: ("Link",)}
    repeatable = () if status not in {404, 429, 503} else ("Retry-After",)
    return answer(meaning, content, "Cache-Control", *more.get(status, ()), *repeatable)
