from __future__ import annotations

from fdb import tuple as fdb_tuple  # type: ignore[import-untyped]  # fdb ships no types
from hypothesis import example, given
from hypothesis import strategies as st

from services.store.keys import Subspace, pack, pack_number

PARTS = st.lists(
    st.one_of(
        st.text(),
        st.binary(),
        st.integers(-(1 << 70), 1 << 70),
        st.sampled_from([(1 << bits) + off for bits in range(0, 65, 8) for off in (-1, 0, 1)]),
    ),
    max_size=5,
).map(tuple)


@given(PARTS)
@example(("a\x00b", b"\x00", 0, -1, (1 << 64) - 1))
def test_keys_are_the_bytes_of_the_foundationdb_tuple_layer(
    parts: tuple[str | int | bytes, ...],
) -> None:
    assert pack(parts) == fdb_tuple.pack(parts)


@given(st.integers(0, (1 << 63) - 1))
def test_a_number_alone_is_packed_as_a_part(number: int) -> None:
    assert pack_number(number) == pack((number,))


@given(PARTS)
def test_a_keys_parts_are_what_it_was_made_of(parts: tuple[str | int | bytes, ...]) -> None:
    space = Subspace("space", 7)
    assert space.parts(space.key(*parts)) == parts


@given(st.tuples(st.text(), st.integers()), st.tuples(st.text(), st.integers()))
def test_keys_sort_as_their_numbers_and_the_utf_8_of_their_texts(
    one: tuple[str, int], other: tuple[str, int]
) -> None:
    keys = Subspace("space").key(*one), Subspace("space").key(*other)
    parts = (one[0].encode(), one[1]), (other[0].encode(), other[1])
    assert (keys[0] < keys[1]) == (parts[0] < parts[1])


def test_a_range_holds_the_keys_that_go_on_and_no_others() -> None:
    space = Subspace("space")
    begin, end = space.range("a")
    inside = [space.key("a", ""), space.key("a", -5), space.key("a", 0), space.key("a", "z", 1)]
    outside = [space.key("a"), space.key("ab", 1), space.key("a\x00", 1), space.key("b")]
    assert all(begin <= key < end for key in inside)
    assert not any(begin <= key < end for key in outside)
