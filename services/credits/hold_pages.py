"""What can be asked about holds: pure functions of a read transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.credits.errors import HoldNotFoundError
from services.credits.holds import due_hold, stored_hold
from services.credits.names import hold_number
from services.credits.records import HOLD_EXPIRIES, HOLDS, Hold, decode_hold
from services.store.pages import Listing, read_page
from services.store.port import ReadTransaction


class HoldPage(NamedTuple):
    """Holds with their numbers, and the token of the next page (empty: there is none)."""

    holds: Sequence[tuple[int, Hold]]
    next_token: str = ""
    version: int = 0


def one(tx: ReadTransaction, *, account_id: str, hold_id: str) -> HoldPage:
    """A hold in any state, alone; raises ``HoldNotFoundError``."""
    number = hold_number(account_id, hold_id)
    hold = None if number is None else stored_hold(tx, account_id, number)
    if number is None or hold is None:
        raise HoldNotFoundError
    return HoldPage([(number, hold)])


def page(tx: ReadTransaction, *, account_id: str, size: int, token: str) -> HoldPage:
    """Open holds, what expires first coming first; raises ``PageTokenInvalidError`` of the store.

    One that is prolonged between two pages may be seen twice.
    """
    listing = Listing("credits.holds", account_id)
    bounds = HOLD_EXPIRIES.range(account_id)
    pairs, next_token = read_page(tx, listing, bounds, size=size, token=token)
    numbers = [due_hold(key, value)[1] for key, value in pairs]
    keys = [HOLDS.key(account_id, number) for number in numbers]
    found = [
        (number, decode_hold(key, stored))
        for number, key, stored in zip(numbers, keys, tx.get_many(keys), strict=True)
        if stored is not None
    ]
    return HoldPage(found, next_token)
