"""What the credit service refuses, one class a reason; its callers get the same classes."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from tollmesh.errors.v1 import errors_pb2 as reasons

from services.rpc.errors import InvalidArgumentError, ServiceError
from services.store import errors as store_errors
from services.store import translation


class InsufficientCreditError(ServiceError):
    """The account has less credit than this takes; nothing was taken.

    Metadata: ``currency``, ``needed`` (from the balance) and ``available`` (what could be taken: an
    overdraft limit counts where it may be used).
    """

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = reasons.ERROR_REASON_INSUFFICIENT_CREDIT

    @classmethod
    def of(
        cls, account_id: str, currency: str, *, needed: int, available: int
    ) -> InsufficientCreditError:
        """The error for taking ``needed`` from a balance of ``available``."""
        error = cls(
            f"{needed} {currency} needed, {available} available",
            metadata={"currency": currency, "needed": str(needed), "available": str(available)},
        )
        error.quota_subject = f"account:{account_id}"
        return error


class HoldNotFoundError(ServiceError):
    """The account has no such hold."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_HOLD_NOT_FOUND


class HoldNotOpenError(ServiceError):
    """The hold is closed. Metadata: ``state`` (CAPTURED, RELEASED or EXPIRED)."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = reasons.ERROR_REASON_HOLD_NOT_OPEN

    @classmethod
    def of(cls, state: str) -> HoldNotOpenError:
        """The error for a hold that reached ``state``."""
        return cls(f"The hold is closed: {state}", metadata={"state": state})


class MeterUnknownError(ServiceError):
    """The tariff has no price for the meter. Metadata: ``meter``."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = reasons.ERROR_REASON_METER_UNKNOWN

    @classmethod
    def of(cls, meter: str) -> MeterUnknownError:
        """The error for a meter that the tariff does not name."""
        return cls(f"The tariff has no price for the meter {meter!r}", metadata={"meter": meter})


class AmountOutOfRangeError(ServiceError):
    """An amount would leave the range of a signed 64-bit integer; nothing was done."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = reasons.ERROR_REASON_AMOUNT_OUT_OF_RANGE


class VersionUnknownError(ServiceError):
    """No answer of this service ever carried this version."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = reasons.ERROR_REASON_VERSION_UNKNOWN


class GrantNotFoundError(ServiceError):
    """The account has no such grant."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_GRANT_NOT_FOUND


class GrantNotOpenError(ServiceError):
    """Nothing of the grant is left to take back. Metadata: ``state`` (SPENT, EXPIRED or VOIDED)."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = reasons.ERROR_REASON_GRANT_NOT_OPEN

    @classmethod
    def of(cls, state: str) -> GrantNotOpenError:
        """The error for a grant that is in ``state``."""
        return cls(f"Nothing of the grant is left: {state}", metadata={"state": state})


class EntryNotFoundError(ServiceError):
    """The account has no debit or capture of that name."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_ENTRY_NOT_FOUND


class RefundExceedsEntryError(ServiceError):
    """More than is left to refund of the entry. Metadata: ``refundable``."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = reasons.ERROR_REASON_REFUND_EXCEEDS_ENTRY

    @classmethod
    def of(cls, refundable: int) -> RefundExceedsEntryError:
        """The error for an entry of which ``refundable`` is left."""
        return cls(
            f"Of this entry {refundable} can still be refunded",
            metadata={"refundable": str(refundable)},
        )


class BatchAbortedError(ServiceError):
    """Another debit of an all-or-nothing batch was refused, so this one was not done."""

    code = grpc.StatusCode.ABORTED
    reason = reasons.ERROR_REASON_BATCH_ABORTED


class LeaseNotOwnedError(ServiceError):
    """The lease belongs to another owner."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = reasons.ERROR_REASON_LEASE_NOT_OWNED


class AccountFullError(ServiceError):
    """The account has as many things of a kind as it may have. Metadata: ``limit``."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = reasons.ERROR_REASON_ACCOUNT_FULL

    @classmethod
    def of(cls, things: str, limit: int) -> AccountFullError:
        """The error for ``things`` (in the plural) of which ``limit`` are allowed."""
        return cls(f"The account has {limit} {things}, the most", metadata={"limit": str(limit)})


def invalid(field: str, rule: str) -> InvalidArgumentError:
    """The error for a field that breaks a rule which the contract's validation cannot know."""
    return InvalidArgumentError(f"{field}: {rule}", violations={field: rule})


ERRORS: tuple[type[ServiceError], ...] = (
    InsufficientCreditError,
    HoldNotFoundError,
    HoldNotOpenError,
    MeterUnknownError,
    AmountOutOfRangeError,
    VersionUnknownError,
    GrantNotFoundError,
    GrantNotOpenError,
    EntryNotFoundError,
    RefundExceedsEntryError,
    BatchAbortedError,
    LeaseNotOwnedError,
    AccountFullError,
)
"""What this service raises besides ``services.rpc.errors.COMMON``: for ``services.rpc.client``."""

STORE_ERRORS: Mapping[type[Exception], type[ServiceError]] = {
    **translation.STORE_ERRORS,
    store_errors.VersionUnknownError: VersionUnknownError,
}
"""What callers are told when the store refuses."""
