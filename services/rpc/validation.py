"""The rules that the protos declare, checked on every request: the one user of protovalidate.

What surely keeps them is not handed to it (``rules``).
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message
from protovalidate import FieldPathElementPb, FieldPathPb, Validator

from services.rpc.errors import InvalidArgumentError
from services.rpc.rules import quick_test

# A status travels in HTTP/2 trailers, which have room for a few kilobytes; a request that breaks
# hundreds of rules is mended by its first few.
_MAX_VIOLATIONS = 8
_MAX_FIELD_CHARS = 100

_collect_violations = Validator().collect_violations


def checker(message_class: type[Message]) -> Callable[[Message], None]:
    """What raises as ``check`` does; compiles the rules now instead of in the first call.

    Raises protovalidate's CompilationError when the proto declares a rule that is none.
    """
    _collect_violations(message_class())
    surely_valid = quick_test(message_class.DESCRIPTOR)
    if surely_valid is None:
        return check

    def checked(message: Message) -> None:
        if not surely_valid(message):
            check(message)

    return checked


def check(message: Message) -> None:
    """Raises InvalidArgumentError naming the fields that break a rule, and the rules."""
    violations = _collect_violations(message)
    if not violations:
        return
    found = {
        _path(violation.proto.field)[:_MAX_FIELD_CHARS]: violation.proto.message
        for violation in violations[:_MAX_VIOLATIONS]
    }
    told = "; ".join(f"{field}: {rule}".removeprefix(": ") for field, rule in found.items())
    raise InvalidArgumentError(told, violations=found)


def _path(path: FieldPathPb | None) -> str:
    """``debits[2].account_id``; empty for a rule of the message as a whole."""
    return "" if path is None else ".".join(_step(element) for element in path.elements)


def _step(element: FieldPathElementPb) -> str:
    subscript = element.subscript
    return element.field_name + ("" if subscript is None else f"[{subscript.value!r}]")
