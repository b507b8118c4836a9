"""Errors over HTTP: an HTTP status for each ErrorReason, and the problem that tells of it.

Format: RFC 9457 (application/problem+json) with the members ``reason`` (an ErrorReason without its
prefix) and ``metadata`` (the same map of strings that gRPC callers get). A 402 has what is missing
as members of its own: ``currency``, ``needed`` and ``available`` (numbers), and ``top_up_url``
where the operator has one, which is also a ``Link`` with ``rel="payment"``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from tollmesh.errors.v1 import errors_pb2 as reasons

from services.edge.origins.errors import (
    LoopError,
    NothingStoredError,
    OriginTimeoutError,
    OriginUnavailableError,
)
from services.rpc.errors import InvalidArgumentError, ServiceError

MEDIA_TYPE = b"application/problem+json"
AUTHENTICATE = b'Bearer realm="tollmesh"'

STATUS: Mapping[reasons.ErrorReason.ValueType, int] = {
    reasons.ERROR_REASON_INVALID_ARGUMENT: 400,
    reasons.ERROR_REASON_INTERNAL: 500,
    reasons.ERROR_REASON_OVERLOADED: 503,
    reasons.ERROR_REASON_SHUTTING_DOWN: 503,
    reasons.ERROR_REASON_DEADLINE_EXCEEDED: 504,
    reasons.ERROR_REASON_STORE_UNAVAILABLE: 503,
    reasons.ERROR_REASON_REQUEST_ID_REUSED: 409,
    reasons.ERROR_REASON_PAGE_TOKEN_INVALID: 400,
    reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE: 503,
    reasons.ERROR_REASON_CREDENTIAL_MISSING: 401,
    reasons.ERROR_REASON_CREDENTIAL_MALFORMED: 401,
    reasons.ERROR_REASON_CREDENTIAL_UNKNOWN: 401,
    reasons.ERROR_REASON_CREDENTIAL_EXPIRED: 401,
    reasons.ERROR_REASON_CREDENTIAL_REVOKED: 401,
    reasons.ERROR_REASON_SCOPE_MISSING: 403,
    reasons.ERROR_REASON_ACCOUNT_SUSPENDED: 403,
    reasons.ERROR_REASON_ACCOUNT_CLOSED: 403,
    reasons.ERROR_REASON_ACCOUNT_NOT_FOUND: 404,
    reasons.ERROR_REASON_API_KEY_NOT_FOUND: 404,
    reasons.ERROR_REASON_ACCOUNT_STATE_CONFLICT: 409,
    reasons.ERROR_REASON_API_KEY_CONFLICT: 409,
    reasons.ERROR_REASON_INSUFFICIENT_CREDIT: 402,
    reasons.ERROR_REASON_HOLD_NOT_FOUND: 404,
    reasons.ERROR_REASON_HOLD_NOT_OPEN: 409,
    reasons.ERROR_REASON_METER_UNKNOWN: 400,
    reasons.ERROR_REASON_AMOUNT_OUT_OF_RANGE: 400,
    reasons.ERROR_REASON_VERSION_UNKNOWN: 400,
    reasons.ERROR_REASON_GRANT_NOT_FOUND: 404,
    reasons.ERROR_REASON_GRANT_NOT_OPEN: 409,
    reasons.ERROR_REASON_ENTRY_NOT_FOUND: 404,
    reasons.ERROR_REASON_REFUND_EXCEEDS_ENTRY: 409,
    reasons.ERROR_REASON_BATCH_ABORTED: 409,
    reasons.ERROR_REASON_LEASE_NOT_OWNED: 403,
    reasons.ERROR_REASON_ACCOUNT_FULL: 409,
    reasons.ERROR_REASON_NETWORK_NOT_FOUND: 404,
    reasons.ERROR_REASON_OBJECT_NOT_FOUND: 404,
    reasons.ERROR_REASON_CID_INVALID: 400,
    reasons.ERROR_REASON_OBJECT_CORRUPT: 502,
    reasons.ERROR_REASON_OBJECT_TOO_LARGE: 413,
    reasons.ERROR_REASON_RANGE_NOT_SATISFIABLE: 416,
    reasons.ERROR_REASON_PUBLICATION_NOT_FOUND: 404,
    reasons.ERROR_REASON_NETWORK_UNAVAILABLE: 503,
    reasons.ERROR_REASON_UPLOAD_INCOMPLETE: 400,
    reasons.ERROR_REASON_RATE_LIMITED: 429,
    reasons.ERROR_REASON_PIN_NOT_FOUND: 404,
    reasons.ERROR_REASON_PIN_CAPACITY_EXHAUSTED: 507,
    reasons.ERROR_REASON_OBJECT_BANNED: 451,
    reasons.ERROR_REASON_BAN_NOT_FOUND: 404,
    reasons.ERROR_REASON_OBJECT_PINNED: 409,
}
"""The HTTP status that goes with a reason; like the gRPC code, it never changes."""

Headers = list[tuple[bytes, bytes]]


class PathNotFoundError(InvalidArgumentError):
    """There is nothing at this path."""


class MethodNotAllowedError(InvalidArgumentError):
    """This path does not take this method; metadata ``allow`` lists those that it takes."""


class MethodUnknownError(InvalidArgumentError):
    """No path of this server takes this method."""


class LengthRequiredError(InvalidArgumentError):
    """An upload states its size: send Content-Length."""


class BodyTimeoutError(InvalidArgumentError):
    """The body of the request stopped arriving."""


class FrontUnknownError(InvalidArgumentError):
    """The door is for servers that know this edge's secret (Tollmesh-Front)."""


class PreconditionFailedError(InvalidArgumentError):
    """If-Match names another object than the one at this path."""


HTTP_ONLY: Mapping[type[ServiceError], int] = {
    FrontUnknownError: 403,
    PathNotFoundError: 404,
    MethodNotAllowedError: 405,
    BodyTimeoutError: 408,
    LengthRequiredError: 411,
    PreconditionFailedError: 412,
    MethodUnknownError: 501,
    OriginUnavailableError: 502,
    NothingStoredError: 504,
    OriginTimeoutError: 504,
    LoopError: 508,
}
"""What only an HTTP caller can meet: a reason of every service, with a status of its own."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error, ready to be sent."""

    status: int
    headers: Headers
    body: bytes


def problem(error: ServiceError, *, instance: str = "") -> Problem:
    """The problem that tells of ``error``; ``instance`` names the request, for the operator."""
    status = status_of(error)
    reason = error.reason_name()
    members: dict[str, object] = {
        "type": f"urn:tollmesh:error:{reason}",
        "title": reason.replace("_", " ").capitalize(),
        "status": status,
        "detail": str(error),
        "reason": reason,
        "metadata": error.metadata,
    }
    if instance:
        members["instance"] = f"urn:tollmesh:request:{instance}"
    if isinstance(error, InvalidArgumentError) and error.violations:
        members["violations"] = error.violations
    if error.reason == reasons.ERROR_REASON_INSUFFICIENT_CREDIT:
        members |= _what_is_missing(error)
    body = json.dumps(members, ensure_ascii=False).encode()
    return Problem(status, [*_headers(error, status), (b"content-length", b"%d" % len(body))], body)


def status_of(error: ServiceError) -> int:
    """The HTTP status that goes with an error."""
    return HTTP_ONLY.get(type(error)) or STATUS[error.reason]


def _what_is_missing(error: ServiceError) -> dict[str, object]:
    """The members of a 402."""
    members: dict[str, object] = {}
    for name, text in error.metadata.items():
        if name in {"needed", "available"}:
            members[name] = int(text)
        elif name in {"currency", "top_up_url"}:
            members[name] = text
    return members


def _headers(error: ServiceError, status: int) -> Headers:
    headers = [(b"content-type", MEDIA_TYPE), (b"cache-control", b"no-store")]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
    if status == 401:
        missing = error.reason == reasons.ERROR_REASON_CREDENTIAL_MISSING
        suffix = b"" if missing else b', error="invalid_token"'
        headers.append((b"www-authenticate", AUTHENTICATE + suffix))
    if status == 403 and "scope" in error.metadata:
        scope = error.metadata["scope"].encode("ascii", "replace")
        challenge = b', error="insufficient_scope", scope="' + scope + b'"'
        headers.append((b"www-authenticate", AUTHENTICATE + challenge))
    if status == 402 and "top_up_url" in error.metadata:
        url = error.metadata["top_up_url"].encode("ascii")
        headers.append((b"link", b"<" + url + b'>; rel="payment"'))
    if status == 405:
        headers.append((b"allow", error.metadata["allow"].encode("ascii")))
    if status == 451 and "blocked_by" in error.metadata:
        blocked_by = error.metadata["blocked_by"].encode("ascii")
        headers.append((b"link", b"<" + blocked_by + b'>; rel="blocked-by"'))
    if status == 416 and "size_bytes" in error.metadata:
        size = error.metadata["size_bytes"].encode("ascii")
        headers.append((b"content-range", b"bytes */" + size))
    return headers
