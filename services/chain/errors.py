"""What the chain service answers with when it cannot do what was asked."""

from __future__ import annotations

import grpc
from tollmesh.errors.v1 import errors_pb2 as reasons

from services.rpc.errors import ServiceError


class NetworkNotFoundError(ServiceError):
    """No network of that name is configured."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_NETWORK_NOT_FOUND


class ObjectNotFoundError(ServiceError):
    """The object is not on the chain, or not yet. Try again shortly if it was just published."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_OBJECT_NOT_FOUND
    retry_after_s = 2.0


class CidInvalidError(ServiceError):
    """Not a CID of this mesh: base32, version 1, raw codec, blake3 with 32 bytes."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = reasons.ERROR_REASON_CID_INVALID


class ObjectCorruptError(ServiceError):
    """What the chain holds is not a well-formed file. Nothing past the last good byte was sent."""

    code = grpc.StatusCode.DATA_LOSS
    reason = reasons.ERROR_REASON_OBJECT_CORRUPT


class NodeInvalidError(ObjectCorruptError):
    """These bytes are not a node as the format writes it."""


class NotAFileError(ObjectCorruptError):
    """The CID names a folder or metadata, or a part of a file; only whole files can be read."""


class ObjectTooLargeError(ServiceError):
    """The object is larger than the limit; metadata ``limit_bytes``."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = reasons.ERROR_REASON_OBJECT_TOO_LARGE


class RangeNotSatisfiableError(ServiceError):
    """The range starts beyond the end of the object; metadata ``size_bytes``."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = reasons.ERROR_REASON_RANGE_NOT_SATISFIABLE


class PublicationNotFoundError(ServiceError):
    """Nothing was published under this CID here."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_PUBLICATION_NOT_FOUND


class NetworkUnavailableError(ServiceError):
    """No endpoint of the network answers. Try again shortly."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = reasons.ERROR_REASON_NETWORK_UNAVAILABLE
    retry_after_s = 1.0


class UploadIncompleteError(ServiceError):
    """The upload's stream broke its own announcement: no header first, or another size."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = reasons.ERROR_REASON_UPLOAD_INCOMPLETE


ERRORS: tuple[type[ServiceError], ...] = (
    NetworkNotFoundError,
    ObjectNotFoundError,
    CidInvalidError,
    ObjectCorruptError,
    ObjectTooLargeError,
    RangeNotSatisfiableError,
    PublicationNotFoundError,
    NetworkUnavailableError,
    UploadIncompleteError,
)
"""A class for each reason of the chain service: what its clients know besides those of any."""
