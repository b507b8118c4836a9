"""Records keep their meaning while their types grow."""

from __future__ import annotations

import pytest

from services.store.records import (
    Record,
    RecordInvalidError,
    WorkingRecord,
    changed,
    decoder,
    encode,
    encode_fields,
)


class Lot(Record, frozen=True):
    name: str
    amount: int


class LargerLot(Record, frozen=True):
    name: str
    amount: int
    expires: int = 7
    tags: tuple[str, ...] = ()


def test_a_record_comes_back_as_it_was() -> None:
    lot = LargerLot("a", -(2**63), 3, ("x", "y"))
    assert decoder(LargerLot)(encode(lot)) == lot


def test_a_field_added_with_a_default_reads_from_old_bytes_and_is_passed_over_by_old_readers() -> (
    None
):
    assert decoder(LargerLot)(encode(Lot("a", 1))) == LargerLot("a", 1, 7, ())
    assert decoder(Lot)(encode(LargerLot("a", 1, 9, ("x",)))) == Lot("a", 1)


def test_bytes_of_another_shape_are_refused() -> None:
    for wrong in (b"", b"\xff", encode(Lot("a", 1))[:-1], encode(Lot("a", 1)) + b"\x00"):
        with pytest.raises(RecordInvalidError):
            decoder(Lot)(wrong)
    with pytest.raises(RecordInvalidError):
        decoder(LargerLot)(encode(LargerLot(1, "a")))  # type: ignore[arg-type]  # on purpose


def test_a_record_is_changed_by_copy() -> None:
    lot = Lot("a", 1)
    assert changed(lot, amount=2) == Lot("a", 2)
    assert lot == Lot("a", 1)
    with pytest.raises(AttributeError):
        lot.amount = 3  # type: ignore[misc]  # on purpose


class Balance(WorkingRecord):
    amount: int
    lots: list[str]


def test_a_working_record_is_altered_in_place() -> None:
    balance = Balance(1, [])
    balance.amount += 1
    balance.lots.append("a")
    assert decoder(Balance)(encode(balance)) == Balance(2, ["a"])


def test_fields_are_encoded_as_their_record() -> None:
    lot = LargerLot("a", 3, 7, ("x",))
    assert encode_fields(("a", 3, 7, ("x",))) == encode(lot)
    assert decoder(LargerLot)(encode_fields(("a", 3))) == LargerLot("a", 3)
