"""What calls raise: one class a reason of ``tollmesh/errors/v1/errors.proto``.

``except InsufficientCredit`` needs no look at codes. Reasons that have no class below (those of
other services) have one too, made from the enum: ``class_of("RATE_LIMITED")``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import grpc

from tollmesh.client.status import DETAILS_KEY, Details, details_of
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.errors.v1.errors_pb2 import ErrorReason

_PREFIX = "ERROR_REASON_"
_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
# What a transport answers when a connection breaks; the service itself gives a reason.
_TRANSPORT = {"UNAVAILABLE", "UNKNOWN", "CANCELLED", "INTERNAL", "DEADLINE_EXCEEDED"}
_RETRYABLE = {
    "OVERLOADED",
    "SHUTTING_DOWN",
    "STORE_UNAVAILABLE",
    "DEPENDENCY_UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "RATE_LIMITED",
}


class TollmeshError(Exception):
    """A call that did not succeed.

    ``str(error)`` is for people. When ``request_id`` is not empty and the outcome is unknown,
    repeat the call with that id: it is applied once.
    """

    reason: str = ""
    """A name of the enum without its prefix; empty when the transport failed."""
    default_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str = "",
        *,
        code: grpc.StatusCode | None = None,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        violations: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or (type(self).__doc__ or "").partition("\n")[0]
        super().__init__(self.message)
        self.code = code or self.default_code
        self.reason = self.reason if reason is None else reason
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s
        self.violations = dict(violations or {})
        """Field path to what is wrong with it."""
        self.request_id = ""

    @property
    def retryable(self) -> bool:
        """Whether the same call, with the same request id, may succeed later."""
        if self.reason:
            return self.reason in _RETRYABLE
        return self.code.name in _TRANSPORT


class InvalidArgument(TollmeshError):
    """A field of the request breaks a rule of the contract."""


class InternalError(TollmeshError):
    """A fault of the service. Metadata: ``incident_id``, to quote to its operator."""


class Overloaded(TollmeshError):
    """Too many requests at once; nothing was done."""


class ShuttingDown(TollmeshError):
    """The process drains; nothing was done."""


class DeadlineExceeded(TollmeshError):
    """The deadline passed; the outcome is unknown. Repeat with the same request_id."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class StoreUnavailable(TollmeshError):
    """The store cannot be reached; the outcome is unknown. Repeat with the same request_id."""


class RequestIdReused(TollmeshError):
    """The request_id was used for a different request."""


class PageTokenInvalid(TollmeshError):
    """The page token is not one that this list gave."""


class DependencyUnavailable(TollmeshError):
    """A service behind the service cannot be reached."""


class InsufficientCredit(TollmeshError):
    """Not enough credit. Metadata: ``currency``, ``needed``, ``available``."""


class HoldNotFound(TollmeshError):
    """The account has no such hold."""


class HoldNotOpen(TollmeshError):
    """The hold is closed. Metadata: ``state``."""


class MeterUnknown(TollmeshError):
    """The tariff has no price for the meter. Metadata: ``meter``."""


class AmountOutOfRange(TollmeshError):
    """An amount would leave the range of a signed 64-bit integer."""


class VersionUnknown(TollmeshError):
    """No such version was ever given."""


class GrantNotFound(TollmeshError):
    """The account has no such grant."""


class GrantNotOpen(TollmeshError):
    """Nothing of the grant is left to take back. Metadata: ``state``."""


class EntryNotFound(TollmeshError):
    """The account has no debit or capture of that name."""


class RefundExceedsEntry(TollmeshError):
    """More than is left to refund. Metadata: ``refundable``."""


class BatchAborted(TollmeshError):
    """Another debit of an all-or-nothing batch was refused."""


class LeaseNotOwned(TollmeshError):
    """The lease belongs to another owner."""


class AccountFull(TollmeshError):
    """The account has as many things of a kind as it may have. Metadata: ``limit``."""


class ClientClosed(TollmeshError):
    """The client is closed. The outcome of a mutation that was under way is unknown."""

    default_code = grpc.StatusCode.CANCELLED
    reason = "CLIENT_CLOSED"


class QueueFull(TollmeshError):
    """Too many debits wait in this client; this one was not sent."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "QUEUE_FULL"


class LeaseExhausted(TollmeshError):
    """The lease has less left than this takes; nothing was spent. More may come shortly."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "LEASE_EXHAUSTED"


def class_of(reason: str) -> type[TollmeshError]:
    """The class of a reason (without its prefix); TollmeshError for one that is unknown."""
    return _BY_REASON.get(reason, TollmeshError)


def of_rpc(error: Exception) -> TollmeshError:
    """What a failed call of grpcio (sync or async) means."""
    status: Any = error
    details = Details()
    for key, value in status.trailing_metadata() or ():
        if key == DETAILS_KEY:
            details = details_of(value)
    code, reason = status.code(), details.reason
    if not reason and code is grpc.StatusCode.DEADLINE_EXCEEDED:
        reason = "DEADLINE_EXCEEDED"
    return class_of(reason)(
        status.details() or code.name,
        code=code,
        reason=reason,
        metadata=details.metadata,
        retry_after_s=details.retry_after_s,
        violations=details.violations,
    )


def of_outcome(error: pb.DebitError) -> TollmeshError:
    """What the outcome of one debit of a batch means."""
    return class_of(error.reason)(
        error.message,
        code=_CODES.get(error.code, grpc.StatusCode.UNKNOWN),
        reason=error.reason,
        metadata=error.metadata,
    )


def _camel(reason: str) -> str:
    return reason.title().replace("_", "")


def _by_reason() -> dict[str, type[TollmeshError]]:
    found: dict[str, type[TollmeshError]] = {}
    for name in ErrorReason.keys()[1:]:
        reason = name.removeprefix(_PREFIX)
        known = globals().get(_camel(reason)) or globals().get(f"{_camel(reason)}Error")
        found[reason] = known or type(_camel(reason), (TollmeshError,), {"__module__": __name__})
        found[reason].reason = reason
    return found


_BY_REASON = _by_reason()
