"""What can be asked about holds: pure functions of a read transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.credits.errors import HoldNotFoundError
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
    stored = None if number is None else tx.get(HOLDS.key(account_id, number))
    if number is None or stored is None:
        raise HoldNotFoundError
    return HoldPage([(number, decode_hold(stored))])


def page(tx: ReadTransaction, *, account_id: str, size: int, token: str) -> HoldPage:
    """Open holds, what expires first coming first; raises ``PageTokenInvalidError`` of the store.

    One that is prolonged between two pages may be seen twice.
    """
    listing = Listing("credits.holds", account_id)
    bounds = HOLD_EXPIRIES.range(account_id)
    pairs, next_token = read_page(tx, listing, bounds, size=size, token=token)
    numbers = [int(HOLD_EXPIRIES.parts(key)[2]) for key, _ in pairs]
    stored = tx.get_many([HOLDS.key(account_id, number) for number in numbers])
    found = [
        (number, decode_hold(value))
        for number, value in zip(numbers, stored, strict=True)
        if value is not None
    ]
    return HoldPage(found, next_token)
