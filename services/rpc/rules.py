"""A quick yes to a request: the rules that the protos declare, as one Python expression a class.

Nearly all requests keep the rules, and to be told so by protovalidate costs three times as much.
What is not answered here with yes is answered there; so whatever is doubtful is a no here.

The rules: https://protovalidate.com/reference/rules/. A class is given a test when all of its
rules, and those of the messages in it, are of the kinds below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from keyword import iskeyword
from typing import Any, TypeAlias

from buf.validate import validate_pb2
from google.protobuf.message import Message

Descriptor: TypeAlias = Any
FieldDescriptor: TypeAlias = Any
"""Of either implementation of protobuf: their stubs have nothing in common."""

Test = Callable[[Message], bool]
_Rules: TypeAlias = Any
"""A message of buf.validate, whose fields depend on what it is a rule of."""

_BOUNDS = {"gt": "<", "gte": "<="}
_UPPER_BOUNDS = {"lt": "<", "lte": "<="}
_LENGTHS = {"min_len", "max_len"}
# Where Python and RE2 agree: no classes with names, no flags, no set operations, no \d or \b.
_same_in_python = re.compile(r"(?:[^\\]|\\[^\w\s])*", re.ASCII).fullmatch
_differs = re.compile(r"\(\?|\[\[|\[:|--|&&|\|\||~~|[+*?}]\+").search


class _UnknownRuleError(Exception):
    """A rule that is not among those that are known here."""


def quick_test(descriptor: Descriptor) -> Test | None:
    """What says of a message whether it surely keeps its rules; None when there is no such test."""
    try:
        return _Maker().test(descriptor)
    except _UnknownRuleError:
        return None


class _Maker:
    """Makes the test of a class, and those of the messages in it."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {}
        self._made: dict[str, Test | None] = {}

    def test(self, descriptor: Descriptor) -> Test:
        """Raises _UnknownRuleError; so does a message that may hold one of its own kind."""
        known = self._made.setdefault(descriptor.full_name, None)
        if known is not None:
            return known
        if descriptor.GetOptions().HasExtension(validate_pb2.message):
            raise _UnknownRuleError(descriptor.full_name)
        conditions = [*self._oneofs(descriptor), *self._fields(descriptor)]
        source = f"lambda m: {' and '.join(conditions) or 'True'}"
        made: Test = eval(source, self._names)  # noqa: S307 (made here, of the names in our protos)
        self._made[descriptor.full_name] = made
        return made

    def _oneofs(self, descriptor: Descriptor) -> Iterator[str]:
        for oneof in descriptor.oneofs:
            rules = oneof.GetOptions().Extensions[validate_pb2.oneof]
            if rules.required:
                yield f"m.WhichOneof({oneof.name!r}) is not None"

    def _fields(self, descriptor: Descriptor) -> Iterator[str]:
        for field in descriptor.fields:
            if iskeyword(field.name):
                raise _UnknownRuleError(field.full_name)
            value = f"m.{field.name}"
            condition = " and ".join(self._field(field, value))
            if condition and field.has_presence:
                yield f"(not m.HasField({field.name!r}) or {condition})"
            elif condition:
                yield condition

    def _field(self, field: FieldDescriptor, value: str) -> Iterator[str]:
        """The conditions on a field that is there."""
        rules = _only_part(field.GetOptions().Extensions[validate_pb2.field])
        inner = field.message_type
        if rules is None and (inner is None or not _has_rules(inner, set())):
            return
        if field.is_repeated:
            yield from self._repeated(field, value, rules)
        elif field.message_type is not None:
            if rules is not None:
                raise _UnknownRuleError(field.full_name)
            yield f"{self._named(self.test(_not_itself(field, self._made)))}({value})"
        elif rules is not None:
            yield from self._scalar(field, value, *rules)

    def _repeated(
        self, field: FieldDescriptor, value: str, rules: tuple[str, _Rules] | None
    ) -> Iterator[str]:
        if rules is not None:
            kind, limits = rules
            allowed = {"min_items", "max_items"}
            if kind != "repeated" or not {rule.name for rule, _ in limits.ListFields()} <= allowed:
                raise _UnknownRuleError(field.full_name)
            if limits.HasField("min_items"):
                yield f"len({value}) >= {limits.min_items}"
            if limits.HasField("max_items"):
                yield f"len({value}) <= {limits.max_items}"
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                raise _UnknownRuleError(field.full_name)
            test = self._named(self.test(_not_itself(field, self._made)))
            yield f"all(map({test}, {value}))"

    def _scalar(
        self, field: FieldDescriptor, value: str, kind: str, rules: _Rules
    ) -> Iterator[str]:
        for rule, limit in rules.ListFields():
            name = rule.full_name if rule.is_extension else rule.name
            if kind == "string" and name == "pattern":
                yield f"{self._named(_pattern(limit))}({value}) is not None"
            elif kind in {"string", "bytes"} and name in _LENGTHS:
                yield f"len({value}) {'>=' if name == 'min_len' else '<='} {limit}"
            elif kind in {"int32", "int64"} and name in _BOUNDS:
                yield f"{limit} {_BOUNDS[name]} {value}"
            elif kind in {"int32", "int64"} and name in _UPPER_BOUNDS:
                yield f"{value} {_UPPER_BOUNDS[name]} {limit}"
            elif kind == "enum" and name == "defined_only":
                yield f"{value} in {self._named(frozenset(field.enum_type.values_by_number))}"
            elif kind == "enum" and name == "not_in":
                yield f"{value} not in {tuple(limit)}"
            else:
                raise _UnknownRuleError(f"{field.full_name}: {kind}.{name}")

    def _named(self, value: object) -> str:
        """A name for a value in the expression."""
        name = f"v{len(self._names)}"
        self._names[name] = value
        return name


def _only_part(rules: _Rules) -> tuple[str, _Rules] | None:
    """The kind of a field's rules and themselves; None for a field without rules."""
    parts = rules.ListFields()
    if not parts:
        return None
    if len(parts) > 1 or parts[0][0].message_type is None or parts[0][0].is_repeated:
        raise _UnknownRuleError(str(rules))
    return parts[0][0].name, parts[0][1]


def _has_rules(descriptor: Descriptor, seen: set[str]) -> bool:
    """Whether a message can break a rule: one of its own, or of the messages in it."""
    if descriptor.full_name in seen:
        return False
    seen.add(descriptor.full_name)
    if descriptor.GetOptions().HasExtension(validate_pb2.message):
        return True
    if any(oneof.GetOptions().HasExtension(validate_pb2.oneof) for oneof in descriptor.oneofs):
        return True
    return any(
        field.GetOptions().HasExtension(validate_pb2.field)
        or (field.message_type is not None and _has_rules(field.message_type, seen))
        for field in descriptor.fields
    )


def _not_itself(field: FieldDescriptor, made: dict[str, Test | None]) -> Descriptor:
    """The class of the message in a field, unless its test is just being made."""
    inner: Descriptor = field.message_type
    if made.get(inner.full_name, inner) is None:
        raise _UnknownRuleError(f"{field.full_name} may hold itself")
    return inner


def _pattern(pattern: str) -> Callable[[str], object]:
    """What matches no more than the pattern does in RE2; raises _UnknownRuleError."""
    inner = pattern[1:-1]
    whole = pattern.startswith("^") and pattern.endswith("$") and not pattern.endswith("\\$")
    if not whole or not _same_in_python(inner) or _differs(inner):
        raise _UnknownRuleError(pattern)
    return re.compile(inner).fullmatch
