"""Pages of a listing, and the tokens between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.store.errors import PageTokenInvalidError
from services.store.keys import Subspace
from services.store.open import open_store
from services.store.pages import DEFAULT_SIZE, Listing, read_page
from services.store.port import Operation, Store, Transaction

ITEMS = Subspace("test", "item")
LISTING = Listing("items", "a")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(f"lmdb://{tmp_path}/store")
    yield store
    await store.close()


async def put(store: Store, numbers: range) -> None:
    def run(tx: Transaction) -> None:
        for number in numbers:
            tx.set(ITEMS.key("a", number), b"%d" % number)
        tx.set(ITEMS.key("a"), b"before the listing")
        tx.set(ITEMS.key("Z", 1), b"of another listing")
        tx.set(ITEMS.key("b", 1), b"of another listing")

    await store.commit(Operation(run))


async def page(
    store: Store, *, size: int = 0, token: str = "", newest_first: bool = False
) -> tuple[list[int], str]:
    read = await store.read(
        lambda tx: read_page(
            tx, LISTING, ITEMS.range("a"), size=size, token=token, newest_first=newest_first
        )
    )
    pairs, next_token = read.result
    return [int(value) for _, value in pairs], next_token


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
async def test_pages_give_every_item_once_in_order(
    store: Store, size: int, newest_first: bool
) -> None:
    await put(store, range(7))
    items, token = await page(store, size=size, newest_first=newest_first)
    sizes = [len(items)]
    while token:
        more, token = await page(store, size=size, token=token, newest_first=newest_first)
        items += more
        sizes.append(len(more))
    assert items == sorted(range(7), reverse=newest_first)
    assert max(sizes) <= size
    assert 0 not in sizes


async def test_without_a_size_a_page_has_the_default(store: Store) -> None:
    await put(store, range(DEFAULT_SIZE + 1))
    items, token = await page(store)
    assert (len(items), bool(token)) == (DEFAULT_SIZE, True)


async def test_what_comes_and_goes_between_pages_moves_nothing_else(store: Store) -> None:
    await put(store, range(0, 20, 2))
    first, token = await page(store, size=3)

    def change(tx: Transaction) -> None:
        tx.set(ITEMS.key("a", 1), b"1")  # before the next page
        tx.set(ITEMS.key("a", 7), b"7")  # on it
        tx.clear(ITEMS.key("a", 4))  # where the token points to

    await store.commit(Operation(change))
    second, _ = await page(store, size=3, token=token)
    assert (first, second) == ([0, 2, 4], [6, 7, 8])


@given(st.binary(min_size=1, max_size=180))
def test_a_token_leads_back_to_its_position(position: bytes) -> None:
    token = LISTING.token(position)
    assert LISTING.position(token) == position
    assert len(token) <= 256


@given(st.binary(min_size=1, max_size=40), st.data())
def test_a_token_that_was_changed_is_refused(position: bytes, data: st.DataObject) -> None:
    token = LISTING.token(position)
    place = data.draw(st.integers(0, len(token) - 1))
    wrong = data.draw(st.characters().filter(lambda c: c != token[place]))
    for text in (
        token[:place] + wrong + token[place + 1 :],
        token[:place],
        token + "=",
        token + "A",
        "A" + token,
    ):
        with pytest.raises(PageTokenInvalidError):
            LISTING.position(text)


@given(st.text(max_size=60))
def test_any_text_that_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(PageTokenInvalidError):
        LISTING.position(text)


def test_a_token_fits_its_own_listing_alone() -> None:
    token = Listing("items", "a", "b").token(b"x")
    for other in (
        Listing("items", "a"),
        Listing("items", "ab"),
        Listing("items", "a", "b", ""),
        Listing("itemsa", "b"),
        Listing("others", "a", "b"),
    ):
        with pytest.raises(PageTokenInvalidError):
            other.position(token)
