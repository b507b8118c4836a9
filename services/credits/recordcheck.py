"""The ledger's records that belong to no one account's part of the keys.

Request records and their index, the agenda, and the index of closed holds: each is held against its
checksum, and what an index names must be there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

from services.credits.account import wallet_key
from services.credits.bookparts import SECTIONS, Pair, account_in, damaged, wallet_of
from services.credits.books import DifferenceError
from services.credits.export import bounded_read
from services.credits.records import (
    ACCOUNTS,
    AGENDA,
    CLOSED_HOLDS,
    ENTRIES,
    FAMILY,
    HOLDS,
    HoldState,
    Wallet,
    decode_hold,
)
from services.store.keys import Subspace
from services.store.port import ReadTransaction, Store
from services.store.records import is_intact
from services.store.requests import RequestRecords

_REQUESTS = RequestRecords(FAMILY, keep_s=0)
"""Only to find what is stored."""

_SECTIONS = (ACCOUNTS, ENTRIES, AGENDA, CLOSED_HOLDS)

Check = Callable[[ReadTransaction, list[Pair]], None]


async def check_records(store: Store) -> AsyncIterator[None]:
    """Checks all of them, yields now and then; raises ``DifferenceError``."""
    await store.read(_no_strays)
    # So many records at a time that those they name still fit one read of the store.
    for (first, end), check, size in (
        (_REQUESTS.bounds(), _request_records, 2000),
        (_REQUESTS.index_bounds(), _request_index, 50),
        (AGENDA.range(), _agenda, 500),
        (CLOSED_HOLDS.range(), _closed_holds, 500),
    ):
        begin = first
        while begin:
            run = partial(_page, begin=begin, end=end, check=check)
            begin = (await bounded_read(store, run, size)).result
            yield
            await asyncio.sleep(0)


def _page(tx: ReadTransaction, *, begin: bytes, end: bytes, check: Check, size: int) -> bytes:
    """Checks the next records; gives where the ones behind them begin, empty: there are none."""
    pairs = tx.range(begin, end, limit=size)
    check(tx, pairs)
    return pairs[-1][0] + b"\x00" if len(pairs) == size else b""


def _request_records(tx: ReadTransaction, pairs: list[Pair]) -> None:
    del tx
    for key, value in pairs:
        if not is_intact(key, value):
            raise damaged("", "request", key, value)


def _request_index(tx: ReadTransaction, pairs: list[Pair]) -> None:
    for key, value in pairs:
        if not is_intact(key, value):
            raise damaged("", "request's expiry", key, value)
    named = [name for key, value in pairs for name in _REQUESTS.named(key, value)]
    for name, stored in zip(named, tx.get_many(named), strict=True):
        if stored is None:
            message = f"the record of a request is missing; its key is {name!r}"
            raise DifferenceError("", "request", "a record", "none", message)


def _agenda(tx: ReadTransaction, pairs: list[Pair]) -> None:
    for key, value in pairs:
        if not is_intact(key, value):
            raise damaged(account_in(AGENDA, key), "place in the agenda", key, value)
    places = [(int(due), str(name)) for due, name in (AGENDA.parts(key) for key, _ in pairs)]
    keys = [wallet_key(name) for _, name in places]
    for (due_us, name), key, stored in zip(places, keys, tx.get_many(keys), strict=True):
        wallet = Wallet() if stored is None else wallet_of(name, key, stored)
        if wallet.agenda_us != due_us:
            message = f"{name}: the agenda says another time than the wallet"
            raise DifferenceError(name, "agenda_us", due_us, wallet.agenda_us, message)


def _closed_holds(tx: ReadTransaction, pairs: list[Pair]) -> None:
    for key, value in pairs:
        if not is_intact(key, value):
            raise damaged(account_in(CLOSED_HOLDS, key), "closed hold's expiry", key, value)
    places = [CLOSED_HOLDS.parts(key)[1:] for key, _ in pairs]
    keys = [HOLDS.key(*place) for place in places]
    for (name, number), key, stored in zip(places, keys, tx.get_many(keys), strict=True):
        closed = stored is not None and decode_hold(key, stored).state != HoldState.OPEN
        if not closed:
            message = f"{name!s}: hold {number!s} is said to be closed and is not"
            raise DifferenceError(str(name), "state", "a closed hold", "none", message)


def _no_strays(tx: ReadTransaction) -> None:
    """Between what the service stores there is nothing."""
    begin = Subspace(FAMILY).prefix
    end = begin[:-1] + bytes([begin[-1] + 1])
    ranges = [section.range() for section in (*_SECTIONS, *SECTIONS)]
    ranges += [_REQUESTS.bounds(), _REQUESTS.index_bounds(), (end, end)]
    for first, behind in sorted(ranges):
        for key, _ in tx.range(begin, first, limit=1):
            message = f"there is a record of no known kind; its key is {key!r}"
            raise DifferenceError("", "key", "none", key.hex(), message)
        begin = behind
