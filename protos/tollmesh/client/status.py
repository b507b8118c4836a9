"""The richer error model of gRPC, read without more packages than grpcio and protobuf.

Format: a ``google.rpc.Status`` in the trailing metadata ``grpc-status-details-bin``
(https://grpc.io/docs/guides/error/). The messages are declared here, wire-compatible, in a pool of
their own, so that they never clash with those of googleapis-common-protos.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "tollmesh"

_Field = descriptor_pb2.FieldDescriptorProto
# A map travels as its repeated entries; Any and Duration as what they are made of.
_MESSAGES = {
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "Status": {"code": (1, "int32"), "message": (2, "string"), "details": (3, "*Any")},
    "Entry": {"key": (1, "string"), "value": (2, "string")},
    "ErrorInfo": {"reason": (1, "string"), "domain": (2, "string"), "metadata": (3, "*Entry")},
    "Duration": {"seconds": (1, "int64"), "nanos": (2, "int32")},
    "RetryInfo": {"retry_delay": (1, "Duration")},
    "FieldViolation": {"field": (1, "string"), "description": (2, "string")},
    "BadRequest": {"field_violations": (1, "*FieldViolation")},
}


@dataclass
class Details:
    """What a status says besides its code and message."""

    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    violations: dict[str, str] = field(default_factory=dict)


def details_of(raw: bytes) -> Details:
    """The details of a serialised status; empty ones when it is malformed or not of Tollmesh."""
    found = Details()
    try:
        for packed in _CLASSES["Status"].FromString(raw).details:
            name = packed.type_url.rpartition(".")[2]
            if name in {"ErrorInfo", "RetryInfo", "BadRequest"}:
                _take(found, name, _CLASSES[name].FromString(packed.value))
    except DecodeError:
        return Details()
    return found if found.reason else Details()


def _take(found: Details, name: str, detail: Any) -> None:  # noqa: ANN401 (a class made below)
    if name == "ErrorInfo" and detail.domain == DOMAIN:
        found.reason = detail.reason
        found.metadata = {entry.key: entry.value for entry in detail.metadata}
    elif name == "RetryInfo":
        found.retry_after_s = detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9
    elif name == "BadRequest":
        found.violations = {item.field: item.description for item in detail.field_violations}


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="status.proto", package="tollmesh.client", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            label = _Field.LABEL_REPEATED if kind.startswith("*") else _Field.LABEL_OPTIONAL
            added = message.field.add(name=field_name, number=number, label=label)
            if kind.islower():
                added.type = _Field.Type.Value(f"TYPE_{kind.upper()}")
            else:
                added.type = _Field.TYPE_MESSAGE
                added.type_name = f".tollmesh.client.{kind.removeprefix('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tollmesh.client.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _classes()
