"""A ServiceError as ``google.rpc.Status`` and back; both sides of the wire use this.

Format: the richer error model of gRPC (https://grpc.io/docs/guides/error/): the serialised Status
travels in the trailing metadata ``grpc-status-details-bin``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2 as details_pb  # type: ignore[import-untyped]  # has none
from google.rpc import status_pb2

from services.rpc.errors import COMMON, DOMAIN, InvalidArgumentError, ServiceError

DETAILS_KEY = "grpc-status-details-bin"

# Peers refuse trailers over 8 KiB, and these bytes travel in base64 beside the message.
_MAX_STATUS_BYTES = 4096
_MAX_MESSAGE_CHARS = 500

ErrorClasses = Mapping[str, type[ServiceError]]


def classes_by_reason(errors: Iterable[type[ServiceError]]) -> ErrorClasses:
    """The classes that a client knows, by reason name: those of any service, and ``errors``."""
    return {error.reason_name(): error for error in (*COMMON, *errors)}


def message_of(error: ServiceError) -> str:
    """What an error says to people, as text that any peer accepts."""
    return _text(str(error))[:_MAX_MESSAGE_CHARS]


def encode(error: ServiceError) -> bytes:
    """The serialised ``google.rpc.Status`` of an error: exactly one ErrorInfo, and what helps.

    What would make it too large for a trailer is left out: all but the ErrorInfo, at worst that
    one's metadata too.
    """
    info = details_pb.ErrorInfo(reason=error.reason_name(), domain=DOMAIN)
    bare = _status(error, [info])
    for name, value in error.metadata.items():
        info.metadata[_text(name)] = _text(value)
    for details in ([info, *_helpful_details(error)], [info]):
        encoded = _status(error, details)
        if len(encoded) <= _MAX_STATUS_BYTES:
            return encoded
    return bare


def decode(raw: bytes, classes: ErrorClasses) -> ServiceError | None:
    """The error that ``encode`` wrote, as the class of its reason.

    None when it is not one of ours: malformed, another domain, or a reason not in ``classes``.
    """
    status = status_pb2.Status()
    info, retry = details_pb.ErrorInfo(), details_pb.RetryInfo()
    bad_request, quota = details_pb.BadRequest(), details_pb.QuotaFailure()
    try:
        status.ParseFromString(raw)
        for packed in status.details:
            for detail in (info, retry, bad_request, quota):
                packed.Unpack(detail)  # does nothing when it is of another type
    except DecodeError:
        return None
    error_class = classes.get(info.reason) if info.domain == DOMAIN else None
    if error_class is None:
        return None
    # Not by its own constructor: a subclass may have given that other parameters.
    error = error_class.__new__(error_class)
    ServiceError.__init__(error, status.message, metadata=info.metadata)
    error.retry_after_s = (
        retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None
    )
    if isinstance(error, InvalidArgumentError):
        error.violations = {item.field: item.description for item in bad_request.field_violations}
    if quota.violations:
        error.quota_subject = quota.violations[0].subject
    return error


def _status(error: ServiceError, details: Iterable[Message]) -> bytes:
    status = status_pb2.Status(code=error.code.value[0], message=message_of(error))
    for detail in details:
        status.details.add().Pack(detail)
    return bytes(status.SerializeToString())


def _helpful_details(error: ServiceError) -> Iterable[Message]:
    if isinstance(error, InvalidArgumentError) and error.violations:
        bad_request = details_pb.BadRequest()
        for field, description in error.violations.items():
            bad_request.field_violations.add(field=_text(field), description=_text(description))
        yield bad_request
    if error.quota_subject is not None:
        quota = details_pb.QuotaFailure()
        quota.violations.add(subject=_text(error.quota_subject), description=message_of(error))
        yield quota
    if error.retry_after_s is not None:
        retry = details_pb.RetryInfo()
        retry.retry_delay.FromTimedelta(timedelta(seconds=error.retry_after_s))
        yield retry


def _text(text: str) -> str:
    """Without the lone surrogates that UTF-8 cannot carry."""
    return text.encode(errors="replace").decode()
