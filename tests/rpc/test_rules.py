"""The quick test of a request says what protovalidate says."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct
from tollmesh.auth.v1 import auth_pb2
from tollmesh.chain.v1 import chain_pb2
from tollmesh.credits.v1 import credits_pb2, leases_pb2, ledger_pb2
from tollmesh.envoy.v3.authorization_pb2 import CheckRequest

from services.rpc.errors import InvalidArgumentError
from services.rpc.rules import quick_test
from services.rpc.validation import check
from tests.support.echo_service import pb as echo_pb
from tests.support.seeds import chosen_seed

Descriptor = Any
FieldDescriptor = Any
"""Of either implementation of protobuf: their stubs have nothing in common."""
MODULES = (auth_pb2, chain_pb2, credits_pb2, leases_pb2, ledger_pb2)
REQUESTS = [
    descriptor
    for module in MODULES
    for name, descriptor in module.DESCRIPTOR.message_types_by_name.items()
    if name.endswith("Request")
]
TEXTS = (
    *("", "a", "hot", "credit", "A.b_c-1", "a:b", "a b", "a\n", "\n", "ü", "a/b", "-", "x" * 32),
    *("x" * 64, "x" * 65, "ü" * 256, "ü" * 257, "0" * 16, "0123456789abcdef", "g" * 16, "download"),
    *(
        "bafk" + "a" * 55,
        "evm:1",
        "tm_local_k1_x",
        "\u0661",
        "a.b",
        "a\x00",
        "hot-0000000000000001",
    ),
)
NUMBERS = (0, 0, 1, 1, 2, 3, 5, 100, 1000, 1001, -1, 2**31 - 1)
WIDE = (2**63 - 1, -(2**63))
ROUNDS = 400


def _valid(message: Message) -> bool:
    try:
        check(message)
    except InvalidArgumentError:
        return False
    return True


def _scalar(field: FieldDescriptor, choose: random.Random) -> Any:  # noqa: ANN401 (of any field)
    if field.type == field.TYPE_STRING:
        return choose.choice(TEXTS)
    if field.type == field.TYPE_BYTES:
        return choose.choice(TEXTS).encode()
    if field.type == field.TYPE_BOOL:
        return choose.random() < 0.5
    if field.type in {field.TYPE_INT64, field.TYPE_SINT64}:
        return choose.choice((*NUMBERS, *WIDE))
    number = choose.choice(NUMBERS)
    unsigned = field.type in {field.TYPE_UINT32, field.TYPE_UINT64}
    return abs(number) if unsigned else number


def _fill(message: Message, choose: random.Random, depth: int = 0) -> None:
    for field in message.DESCRIPTOR.fields:
        if choose.random() < 0.25 or (field.message_type is not None and depth > 2):
            continue
        if field.is_repeated and field.message_type is not None:
            for _ in range(choose.randrange(4)):
                _fill(getattr(message, field.name).add(), choose, depth + 1)
        elif field.is_repeated:
            count = choose.choice((1, 2, 17, 101))
            getattr(message, field.name).extend(_scalar(field, choose) for _ in range(count))
        elif field.message_type is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            _fill(inner, choose, depth + 1)
        else:
            setattr(message, field.name, _scalar(field, choose))


@pytest.mark.parametrize("descriptor", REQUESTS, ids=lambda descriptor: str(descriptor.name))
def test_it_agrees_with_protovalidate(descriptor: Descriptor) -> None:
    test = quick_test(descriptor)
    if test is None:
        return  # protovalidate has the only word
    seed = chosen_seed()
    choose = random.Random(f"{seed} {descriptor.full_name}")
    for _ in range(ROUNDS):
        message = GetMessageClass(descriptor)()
        _fill(message, choose)
        assert test(message) is _valid(message), message


@pytest.mark.parametrize(
    ("amount", "currency", "valid"),
    [(1, "", True), (0, "credit", True), (-1, "", False), (1, "C", False), (1, "credit\n", False)],
)
def test_debits_have_a_test(amount: int, currency: str, *, valid: bool) -> None:
    test = quick_test(credits_pb2.DebitRequest.DESCRIPTOR)
    assert test is not None
    debit = credits_pb2.DebitRequest(
        request_id="r", account_id="a", currency=currency, amount=amount
    )
    assert test(debit) is valid is _valid(debit)
    batch = quick_test(credits_pb2.BatchDebitRequest.DESCRIPTOR)
    assert batch is not None
    assert batch(credits_pb2.BatchDebitRequest(debits=[debit])) is valid
    assert not batch(credits_pb2.BatchDebitRequest())


def test_a_class_without_rules_keeps_them_whatever_it_holds() -> None:
    for descriptor in (Struct.DESCRIPTOR, CheckRequest.DESCRIPTOR):
        test = quick_test(descriptor)
        assert test is not None
        message = GetMessageClass(descriptor)()
        assert test(message) is _valid(message) is True


def test_a_class_that_may_hold_itself_has_none() -> None:
    assert quick_test(echo_pb.SayRequest.DESCRIPTOR) is None


@pytest.mark.parametrize(
    "pattern",
    [r"^\d+$", "^a", "a$", "(?i)^a$", "^[[:alpha:]]$", r"^a\$", r"^\pL$", "^a++$", "^[a--b]$"],
)
def test_a_pattern_that_python_may_read_otherwise_has_none(pattern: str) -> None:
    assert quick_test(_text_message(pattern)) is None


def _text_message(pattern: str) -> Descriptor:
    """The class of a message with one field of text that has a pattern."""
    options = credits_pb2.DebitRequest.DESCRIPTOR.fields_by_name["request_id"].GetOptions()
    text = type(options).FromString(options.SerializeToString())
    (rules,) = [value for field, value in text.ListFields() if field.name == "field"]
    rules.string.pattern = pattern
    file = FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    field = file.message_type.add(name="Text").field.add(
        name="text", number=1, type=9, label=1, json_name="text"
    )
    field.options.CopyFrom(text)
    pool = DescriptorPool()
    pool.Add(file)
    found: Descriptor = pool.FindMessageTypeByName("t.Text")
    return found
