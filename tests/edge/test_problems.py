"""Errors as problems: every reason has its status, and says no more than it should."""

from __future__ import annotations

import json

import pytest
from tollmesh.errors.v1 import errors_pb2 as reasons

from services.auth.errors import CredentialMissingError, CredentialUnknownError, ScopeMissingError
from services.chain.errors import RangeNotSatisfiableError
from services.credits.errors import InsufficientCreditError
from services.edge.errors import RateLimitedError
from services.edge.http.problems import STATUS, LengthRequiredError, problem, status_of
from services.rpc.errors import InvalidArgumentError, ServiceError


def test_every_reason_has_a_status() -> None:
    assert set(STATUS) == set(reasons.ErrorReason.values()) - {reasons.ERROR_REASON_UNSPECIFIED}
    assert all(400 <= status < 600 for status in STATUS.values())


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [
        (CredentialMissingError(), 401, (b"www-authenticate", b'Bearer realm="tollmesh"')),
        (
            CredentialUnknownError(),
            401,
            (b"www-authenticate", b'Bearer realm="tollmesh", error="invalid_token"'),
        ),
        (
            ScopeMissingError(metadata={"scope": "UPLOAD"}),
            403,
            (
                b"www-authenticate",
                b'Bearer realm="tollmesh", error="insufficient_scope", scope="UPLOAD"',
            ),
        ),
        (RateLimitedError(), 429, (b"retry-after", b"1")),
        (RateLimitedError(retry_after_s=2.2), 429, (b"retry-after", b"3")),
        (
            RangeNotSatisfiableError(metadata={"size_bytes": "7"}),
            416,
            (b"content-range", b"bytes */7"),
        ),
        (LengthRequiredError(), 411, (b"cache-control", b"no-store")),
    ],
)
def test_an_error_has_its_status_and_headers(
    error: ServiceError, status: int, header: tuple[bytes, bytes]
) -> None:
    answer = problem(error)
    assert (answer.status, status_of(error)) == (status, status)
    assert header in answer.headers
    assert (b"content-type", b"application/problem+json") in answer.headers
    assert (b"content-length", str(len(answer.body)).encode()) in answer.headers


def test_a_problem_has_the_members_of_the_rfc_and_ours() -> None:
    metadata = {"currency": "credit", "needed": "7", "available": "3"}
    error = InsufficientCreditError("7 credit needed, 3 available", metadata=metadata)
    document = json.loads(problem(error, instance="r-1").body)
    assert document == {
        "type": "urn:tollmesh:error:INSUFFICIENT_CREDIT",
        "title": "Insufficient credit",
        "status": 402,
        "detail": "7 credit needed, 3 available",
        "reason": "INSUFFICIENT_CREDIT",
        "metadata": metadata,
        "currency": "credit",
        "needed": 7,
        "available": 3,
        "instance": "urn:tollmesh:request:r-1",
    }


def test_who_has_too_little_is_told_where_to_get_more() -> None:
    url = "https://pay.example/top-up?from=edge"
    metadata = {"currency": "credit", "needed": "7", "available": "3", "top_up_url": url}
    answer = problem(InsufficientCreditError(metadata=metadata))
    assert json.loads(answer.body)["top_up_url"] == url
    assert (b"link", f'<{url}>; rel="payment"'.encode()) in answer.headers


def test_violations_are_told() -> None:
    error = InvalidArgumentError("wrong", violations={"name": "is too long"})
    assert json.loads(problem(error).body)["violations"] == {"name": "is too long"}
