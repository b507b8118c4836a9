"""Errors across the wire: an exception class a reason, the same on both sides.

Each service declares its own in its ``errors.py``; what any service may raise stands here. An error
travels as a gRPC status with exactly one ``google.rpc.ErrorInfo`` (domain ``tollmesh``), plus the
details of the contract (``protos/tollmesh/errors/v1/errors.proto``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import grpc
from tollmesh.errors.v1 import errors_pb2 as reasons

DOMAIN = "tollmesh"


class ServiceError(Exception):
    """An answer that is not a success. Subclasses declare one code and one reason.

    ``str(error)`` is for people and crosses the wire; so do ``metadata`` (strings) and, when it is
    not None, ``retry_after_s`` as ``RetryInfo``. Neither ever holds a secret or an internal detail.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar[reasons.ErrorReason.ValueType] = reasons.ERROR_REASON_INTERNAL
    retry_after_s: float | None = None
    quota_subject: str | None = None
    """Whose quota is used up (an account, say); when set, it crosses the wire as QuotaFailure."""

    def __init__(
        self,
        message: str = "",
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])
        self.metadata: dict[str, str] = dict(metadata or {})
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s

    @classmethod
    def reason_name(cls) -> str:
        """The reason as it stands in ``ErrorInfo``: ``INSUFFICIENT_CREDIT``."""
        return reasons.ErrorReason.Name(cls.reason).removeprefix("ERROR_REASON_")


class StatusError(Exception):
    """A call that breaks gRPC's own rules, and ends with a bare status: no error of the contract.

    Raised by what reads calls from the wire, never by handlers.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class InvalidArgumentError(ServiceError):
    """A field of the request breaks a rule of the contract."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = reasons.ERROR_REASON_INVALID_ARGUMENT

    def __init__(
        self,
        message: str = "",
        *,
        violations: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, metadata=metadata, retry_after_s=retry_after_s)
        self.violations: dict[str, str] = dict(violations or {})
        """Field path to what is wrong with it; crosses the wire as BadRequest."""


class InternalError(ServiceError):
    """A fault of the service; its log has the detail under the incident id."""


class OverloadedError(ServiceError):
    """Too many requests at once; nothing was done. Try again shortly."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = reasons.ERROR_REASON_OVERLOADED
    retry_after_s = 1.0


class ShuttingDownError(ServiceError):
    """This process is shutting down; nothing was done. Try again: another one will answer."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = reasons.ERROR_REASON_SHUTTING_DOWN
    retry_after_s = 1.0


class DeadlineExceededError(ServiceError):
    """The deadline passed; the outcome is unknown. Repeat with the same request_id."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = reasons.ERROR_REASON_DEADLINE_EXCEEDED


class NoAnswerError(DeadlineExceededError):
    """The deadline passed without a word of the service; the outcome is unknown."""


class StoreUnavailableError(ServiceError):
    """The store cannot be reached; the outcome is unknown. Repeat with the same request_id."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = reasons.ERROR_REASON_STORE_UNAVAILABLE
    retry_after_s = 1.0


class RequestIdReusedError(ServiceError):
    """This request_id was used for a different request. Choose a new one for a new request."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = reasons.ERROR_REASON_REQUEST_ID_REUSED


class PageTokenInvalidError(ServiceError):
    """The page token is not one that this list gave. Start again without one."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = reasons.ERROR_REASON_PAGE_TOKEN_INVALID


class DependencyUnavailableError(ServiceError):
    """A service that this one needs cannot be reached. Try again shortly."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE
    retry_after_s = 1.0


COMMON: tuple[type[ServiceError], ...] = (
    InvalidArgumentError,
    InternalError,
    OverloadedError,
    ShuttingDownError,
    DeadlineExceededError,
    StoreUnavailableError,
    RequestIdReusedError,
    PageTokenInvalidError,
    DependencyUnavailableError,
)
"""What any service may raise; every client knows these besides its service's own."""


def request_too_large(limit: int) -> InvalidArgumentError:
    """The error for a request of more than ``limit`` bytes."""
    return InvalidArgumentError(f"the request is larger than {limit} bytes")
