"""Records keep their meaning while their types grow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.store.errors import RecordDamagedError
from services.store.records import (
    Record,
    RecordInvalidError,
    WorkingRecord,
    changed,
    decoder,
    encode,
    encode_fields,
    is_intact,
    sealed,
    sealed_decoder,
    sealed_record,
    unsealed,
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


KEY = b"\x02c\x00a key"


@pytest.mark.parametrize("value", [b"", b"x", bytes(300)])
def test_a_sealed_value_comes_back_and_any_flipped_bit_is_found(value: bytes) -> None:
    stored = sealed(KEY, value)
    assert unsealed(KEY, stored) == value
    assert is_intact(KEY, stored)
    for key, damaged in [
        *((KEY, flipped) for flipped in _flips(stored)),
        *((flipped, stored) for flipped in _flips(KEY)),
        (KEY, stored[:-1]),
        (KEY, b""),
    ]:
        assert not is_intact(key, damaged)
        with pytest.raises(RecordDamagedError) as caught:
            unsealed(key, damaged)
        assert caught.value.key == key
        assert repr(key) in str(caught.value)


def _flips(data: bytes) -> Iterator[bytes]:
    """The data with one bit changed, for each bit."""
    for at, byte in enumerate(data):
        for bit in range(8):
            yield data[:at] + bytes([byte ^ 1 << bit]) + data[at + 1 :]


def test_a_sealed_record_is_read_at_its_key_only() -> None:
    lot = Lot("a", 1)
    stored = sealed_record(KEY, lot)
    assert stored == sealed(KEY, encode(lot))
    assert sealed_decoder(Lot)(KEY, stored) == lot
    with pytest.raises(RecordDamagedError, match="checksum"):
        sealed_decoder(Lot)(b"another key", stored)
    with pytest.raises(RecordDamagedError):
        sealed_decoder(Lot)(KEY, sealed(KEY, b"no record"))


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
