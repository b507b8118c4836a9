"""What the auth service answers besides success. A reason, a code and a class each.

No message tells more than its reason does: a wrong secret and an unknown key are one error.
"""

from __future__ import annotations

import grpc
from tollmesh.errors.v1 import errors_pb2 as reasons

from services.rpc.errors import ServiceError


class CredentialMissingError(ServiceError):
    """No credential was given. Send an API key."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = reasons.ERROR_REASON_CREDENTIAL_MISSING


class CredentialMalformedError(ServiceError):
    """This is not a Tollmesh API key, or it is mistyped. Copy it again, whole."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = reasons.ERROR_REASON_CREDENTIAL_MALFORMED


class CredentialUnknownError(ServiceError):
    """There is no such API key."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = reasons.ERROR_REASON_CREDENTIAL_UNKNOWN


class CredentialExpiredError(ServiceError):
    """The API key has expired."""

    # Metadata: expired_at (RFC 3339).
    code = grpc.StatusCode.UNAUTHENTICATED
    reason = reasons.ERROR_REASON_CREDENTIAL_EXPIRED


class CredentialRevokedError(ServiceError):
    """The API key was revoked."""

    # Metadata: revoked_at (RFC 3339).
    code = grpc.StatusCode.UNAUTHENTICATED
    reason = reasons.ERROR_REASON_CREDENTIAL_REVOKED


class ScopeMissingError(ServiceError):
    """The API key may not do this."""

    # Metadata: scope (the one that is needed).
    code = grpc.StatusCode.PERMISSION_DENIED
    reason = reasons.ERROR_REASON_SCOPE_MISSING


class AccountSuspendedError(ServiceError):
    """The account is suspended. Ask its operator."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = reasons.ERROR_REASON_ACCOUNT_SUSPENDED


class AccountClosedError(ServiceError):
    """The account is closed."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = reasons.ERROR_REASON_ACCOUNT_CLOSED


class AccountNotFoundError(ServiceError):
    """There is no such account."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_ACCOUNT_NOT_FOUND


class ApiKeyNotFoundError(ServiceError):
    """There is no such API key."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_API_KEY_NOT_FOUND


class AccountStateConflictError(ServiceError):
    """The account is closed: it stays closed and gets no keys."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = reasons.ERROR_REASON_ACCOUNT_STATE_CONFLICT


class ApiKeyConflictError(ServiceError):
    """This secret belongs to a key already, which has another account, scopes, name or expiry."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = reasons.ERROR_REASON_API_KEY_CONFLICT


ERRORS: tuple[type[ServiceError], ...] = (
    CredentialMissingError,
    CredentialMalformedError,
    CredentialUnknownError,
    CredentialExpiredError,
    CredentialRevokedError,
    ScopeMissingError,
    AccountSuspendedError,
    AccountClosedError,
    AccountNotFoundError,
    ApiKeyNotFoundError,
    AccountStateConflictError,
    ApiKeyConflictError,
)
"""Every class that a client of the auth service must know, besides those of any service."""
