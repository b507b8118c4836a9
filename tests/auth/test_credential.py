"""The text of a key: what is accepted, and that typing errors are not."""

from __future__ import annotations

import math
import re
import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth import identifiers
from services.auth.credential import KEY_ID_CHARS, SECRET_CHARS, Credential
from services.auth.errors import CredentialMalformedError, CredentialMissingError

LETTERS_AND_DIGITS = string.ascii_letters + string.digits
texts = st.builds(
    Credential,
    environment=st.from_regex("[a-z][a-z0-9]{0,15}", fullmatch=True),
    key_id=st.text(LETTERS_AND_DIGITS, min_size=KEY_ID_CHARS, max_size=KEY_ID_CHARS),
    secret=st.text(LETTERS_AND_DIGITS, min_size=SECRET_CHARS, max_size=SECRET_CHARS),
).map(Credential.reveal)


def refused(text: str) -> bool:
    try:
        Credential.parse(text)
    except CredentialMalformedError:
        return True
    return False


@given(texts)
def test_what_was_revealed_is_parsed_again(text: str) -> None:
    parsed = Credential.parse(text)
    assert parsed.reveal() == text
    assert text == f"tm_{parsed.environment}_{parsed.key_id}_{parsed.secret}{text[-8:]}"


def test_every_wrong_character_at_every_place_is_refused() -> None:
    text = Credential("local", identifiers.new_key_id(), identifiers.new_secret()).reveal()
    for place, right in enumerate(text):
        for wrong in string.printable:
            if wrong != right:
                assert refused(text[:place] + wrong + text[place + 1 :]), (place, wrong)


@given(texts, st.data())
def test_one_wrong_character_is_refused(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text) - 1))
    wrong = data.draw(st.characters().filter(lambda c: c != text[place]))
    assert refused(text[:place] + wrong + text[place + 1 :])


@given(texts, st.data())
def test_two_exchanged_characters_are_refused(text: str, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(text) - 1))
    second = data.draw(st.integers(0, len(text) - 1).filter(lambda i: text[i] != text[first]))
    characters = list(text)
    characters[first], characters[second] = characters[second], characters[first]
    assert refused("".join(characters))


@given(texts, st.data())
def test_a_missing_or_an_additional_character_is_refused(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text) - 1))
    added = data.draw(st.sampled_from(LETTERS_AND_DIGITS))
    assert refused(text[:place] + text[place + 1 :])
    assert refused(text[:place] + added + text[place:])


def test_no_exchange_of_two_characters_can_keep_the_checksum() -> None:
    # CRC-32 is linear: changing a character k characters before the end by `change` changes the
    # checksum by `effect`, whatever the text. Two characters of the body, exchanged, change by the
    # same; one exchanged with a digit of the checksum changes that one digit.
    effects = {
        (distance, change): zlib.crc32(bytes([change, *bytes(distance)]))
        ^ zlib.crc32(bytes(distance + 1))
        for distance in range(80)
        for change in range(1, 128)
    }
    for change in range(1, 128):
        over_the_body = {effects[distance, change] for distance in range(80)}
        assert len(over_the_body) == 80
    for effect in effects.values():
        assert sum(digit != "0" for digit in f"{effect:08x}") > 1


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "tm_",
        "Bearer tm_local_x",
        "tm_local_" + "a" * 16 + "_" + "b" * 40,
        "sk_" + "a" * 70,
        "\x00" * 66,
        "tm_locál_" + "a" * 16 + "_" + "b" * 32 + "00000000",
        "a" * 512,
    ],
)
def test_what_is_no_key_is_malformed(text: str) -> None:
    with pytest.raises(CredentialMalformedError):
        Credential.parse(text)


def test_white_space_around_a_key_is_not_forgiven() -> None:
    text = Credential("local", identifiers.new_key_id(), identifiers.new_secret()).reveal()
    assert refused(text + "\n")
    assert refused(" " + text)


def test_nothing_at_all_is_missing() -> None:
    with pytest.raises(CredentialMissingError):
        Credential.parse("")


def test_a_credential_does_not_show_its_secret_by_accident() -> None:
    credential = Credential("local", identifiers.new_key_id(), identifiers.new_secret())
    assert credential.secret not in f"{credential} {credential!r} {[credential]}"


def test_a_secret_has_at_least_128_bits() -> None:
    assert SECRET_CHARS * math.log2(len(LETTERS_AND_DIGITS)) >= 128
    assert len({identifiers.new_secret() for _ in range(1000)}) == 1000


def test_new_ids_have_the_forms_of_the_contract() -> None:
    for _ in range(100):
        assert re.fullmatch("acc_[a-z2-7]{16}", identifiers.new_account_id())
        assert re.fullmatch("[A-Za-z0-9]{16}", identifiers.new_key_id())
        assert re.fullmatch("[A-Za-z0-9]{32}", identifiers.new_secret())
