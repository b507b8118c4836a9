"""The rules that the protos declare, checked on every request: the one user of protovalidate."""

from __future__ import annotations

from google.protobuf.message import Message
from protovalidate import FieldPathPb, Validator

from services.rpc.errors import InvalidArgumentError

_collect_violations = Validator().collect_violations


def check(message: Message) -> None:
    """Raises InvalidArgumentError naming every field that breaks a rule, and the rule."""
    violations = _collect_violations(message)
    if violations:
        found = {_path(item.proto.field): item.proto.message for item in violations}
        listed = "; ".join(
            f"{field}: {message}" if field else message for field, message in found.items()
        )
        raise InvalidArgumentError(listed, violations=found)


def _path(path: FieldPathPb | None) -> str:
    return ".".join(element.field_name for element in path.elements) if path is not None else ""
