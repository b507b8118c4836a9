"""What the edge answers with, besides what auth, credits and chain say."""

from __future__ import annotations

import grpc
from tollmesh.errors.v1 import errors_pb2 as reasons

from services.rpc.errors import ServiceError


class RateLimitedError(ServiceError):
    """Too many requests of this account at once on this edge. Try again when one has ended."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = reasons.ERROR_REASON_RATE_LIMITED
    retry_after_s = 1.0


class PinNotFoundError(ServiceError):
    """The account has not pinned this object on this edge."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_PIN_NOT_FOUND


class PinCapacityExhaustedError(ServiceError):
    """This edge has no more room for pinned objects."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = reasons.ERROR_REASON_PIN_CAPACITY_EXHAUSTED


class ObjectBannedError(ServiceError):
    """This object is not served here, for legal reasons."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = reasons.ERROR_REASON_OBJECT_BANNED


class BanNotFoundError(ServiceError):
    """This object is not banned on this edge."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_BAN_NOT_FOUND


class ObjectPinnedError(ServiceError):
    """Somebody pays for this object to stay; say that it is to be dropped all the same."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = reasons.ERROR_REASON_OBJECT_PINNED


ERRORS: tuple[type[ServiceError], ...] = (
    RateLimitedError,
    PinNotFoundError,
    PinCapacityExhaustedError,
    ObjectBannedError,
    BanNotFoundError,
    ObjectPinnedError,
)
"""A class for each reason of the edge: what clients know besides those of services behind it."""
