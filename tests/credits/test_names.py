from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.credits.names import (
    entry_name,
    entry_number,
    grant_name,
    grant_number,
    hold_name,
    hold_number,
)

NUMBERS = st.integers(1, 2**63)


@given(st.text(), NUMBERS)
def test_a_holds_name_leads_back_to_its_number(account_id: str, number: int) -> None:
    assert hold_number(account_id, hold_name(account_id, number)) == number


@given(st.text(), NUMBERS)
def test_so_do_the_names_of_a_grant_and_of_an_entry(account_id: str, number: int) -> None:
    assert grant_number(account_id, grant_name(account_id, number)) == number
    assert entry_number(entry_name(number)) == number


@given(NUMBERS)
def test_a_name_is_good_for_its_own_account_and_kind_only(number: int) -> None:
    assert hold_number("bob", hold_name("alice", number)) is None
    assert hold_number("alice", grant_name("alice", number)) is None
    assert grant_number("bob", grant_name("alice", number)) is None
    assert grant_number("alice", hold_name("alice", number)) is None
    assert entry_number(grant_name("alice", number)) is None


@given(st.text())
def test_any_other_text_is_no_holds_name(text: str) -> None:
    assert hold_number("alice", text) is None
    assert hold_number("alice", f"hold-{text}-{hold_name('alice', 1)[-8:]}") in {
        None,
        *([int(text, 16)] if text.isalnum() and _is_plain_hex(text) else []),
    }


def _is_plain_hex(text: str) -> bool:
    try:
        return f"{int(text, 16):x}" == text
    except ValueError:
        return False


@given(NUMBERS, NUMBERS)
def test_the_names_of_entries_sort_as_the_entries_do(one: int, other: int) -> None:
    assert (entry_name(one) < entry_name(other)) == (one < other)
