"""Which accounts and entries the ledger has, in parts that one read of the store can hold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from google.protobuf.json_format import MessageToJson
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.entries import checked_entries
from services.credits.records import ACCOUNTS, ENTRIES, Entry, is_wallet
from services.store.errors import OperationTooLargeError
from services.store.pages import Listing, read_page
from services.store.port import Committed, ReadTransaction, Store

T = TypeVar("T")

PAGE = 100
PART = 200
"""Entries of one message of an export at most."""


async def halved(read: Callable[[int], Awaitable[T]], size: int) -> T:
    """Awaits ``read(size)``, with half the size each time that this was too much for one read."""
    while True:
        try:
            return await read(size)
        except OperationTooLargeError:
            if size == 1:
                raise
            size //= 2


async def bounded_read(store: Store, run: Callable[..., T], size: int) -> Committed[T]:
    """Reads ``run(tx, size=size)``, with half the size each time that this was too much."""
    return await halved(lambda size: store.read(partial(run, size=size)), size)


def accounts(tx: ReadTransaction, *, token: str, size: int) -> tuple[list[str], str]:
    """A page of account ids, and the next page's token; raises ``PageTokenInvalidError``."""
    listing = Listing("credits.accounts")
    page, token = read_page(tx, listing, ACCOUNTS.range(), size=size, token=token)
    return [str(ACCOUNTS.parts(key)[0]) for key, _ in page], token


def entries(
    tx: ReadTransaction, *, account_id: str, cursor: str, size: int
) -> tuple[Sequence[tuple[str, int, Entry]], str, bool]:
    """Entries behind a cursor (of one account, or of all), their cursor, and if more follow.

    Raises ``PageTokenInvalidError`` for a cursor of another export.
    """
    listing = Listing("credits.export", account_id)
    begin, end = ENTRIES.range(*([account_id] if account_id else []))
    prefix = begin[:-1]
    if cursor:
        begin = prefix + listing.position(cursor) + b"\x00"
    pairs = tx.range(begin, end, limit=size)
    if pairs:
        cursor = listing.token(pairs[-1][0][len(prefix) :])
    found = checked_entries(tx, [pair for pair in pairs if not is_wallet(pair[0])])
    return found, cursor, len(pairs) == size


def json_line(entry: pb.Entry) -> bytes:
    """An entry in ProtoJSON on a line of its own."""
    return MessageToJson(entry, indent=None).encode() + b"\n"
