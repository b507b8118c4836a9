"""The order in which credit is spent: a purse's lots, the first few in it, the rest in its tail.

So a wallet stays small for an account with a thousand grants, and a debit reads and writes no more
than the wallet unless it uses up the whole head. Every lot of the head sorts before every lot of
the tail, and a purse with a tail has a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.credits.records import LOTS, Lot, Purse, decode_lot
from services.store.port import ReadTransaction, Transaction
from services.store.records import changed, encode

HEAD_LOTS = 16
"""How many lots stand in the purse at most."""


class Shelf(NamedTuple):
    """Where the tail of one purse stands."""

    account_id: str
    currency: str

    def key(self, lot: Lot) -> bytes:
        """The key of a lot of the tail; sorts in spend order."""
        return LOTS.key(self.account_id, self.currency, lot.expire_us, lot.priority, lot.number)

    def lots(self, tx: ReadTransaction, limit: int = 0) -> tuple[Lot, ...]:
        """The lots of the tail in spend order; ``limit`` 0 means all."""
        begin, end = LOTS.range(self.account_id, self.currency)
        return tuple(decode_lot(value) for _, value in tx.range(begin, end, limit=limit))


def put(tx: Transaction, shelf: Shelf, purse: Purse, lot: Lot) -> Purse:
    """Adds a lot's credit to what is available; joins what is there of the same grant."""
    available = purse.available + lot.remaining
    if purse.tail and _place(lot) > _place(purse.head[-1]):
        tail = purse.tail + _shelve(tx, shelf, lot)
        return changed(purse, available=available, tail=tail)
    head = _joined(purse.head, lot)
    tail = purse.tail
    if len(head) > HEAD_LOTS:
        tail += _shelve(tx, shelf, head.pop())
    return changed(purse, available=available, head=tuple(head), tail=tail)


def take(tx: Transaction, shelf: Shelf, purse: Purse, amount: int) -> tuple[Purse, list[Lot]]:
    """Takes ``amount``, which must be available, in spend order; gives what it took from where."""
    taken: list[Lot] = []
    left, head, tail = amount, list(purse.head), purse.tail
    while left:
        lot = head[0]
        if lot.remaining > left:
            taken.append(changed(lot, remaining=left))
            head[0] = changed(lot, remaining=lot.remaining - left)
            break
        taken.append(lot)
        left -= lot.remaining
        del head[0]
        if not head and tail:
            head = _unshelve(tx, shelf)
            tail -= len(head)
    changes = changed(purse, available=purse.available - amount, head=tuple(head), tail=tail)
    return changes, taken


def take_due(
    tx: Transaction, shelf: Shelf, purse: Purse, now_us: int, limit: int
) -> tuple[Purse, list[Lot]]:
    """Takes at most ``limit`` lots whose time is over."""
    due: list[Lot] = []
    head, tail = list(purse.head), purse.tail
    while head and head[0].expire_us <= now_us and len(due) < limit:
        due.append(head.pop(0))
        if not head and tail:
            head = _unshelve(tx, shelf)
            tail -= len(head)
    available = purse.available - sum(lot.remaining for lot in due)
    return changed(purse, available=available, head=tuple(head), tail=tail), due


def split(lots: Sequence[Lot], amount: int) -> tuple[list[Lot], list[Lot]]:
    """Cuts lots, in their order, into ``amount`` of credit and the rest."""
    first: list[Lot] = []
    for index, lot in enumerate(lots):
        if lot.remaining > amount:
            if amount:
                first.append(changed(lot, remaining=amount))
            rest = changed(lot, remaining=lot.remaining - amount)
            return first, [rest, *lots[index + 1 :]]
        first.append(lot)
        amount -= lot.remaining
    return first, []


def _place(lot: Lot) -> tuple[int, int, int]:
    return lot.expire_us, lot.priority, lot.number


def _joined(head: Sequence[Lot], lot: Lot) -> list[Lot]:
    joined = list(head)
    for index, other in enumerate(joined):
        if other.number == lot.number:
            joined[index] = changed(other, remaining=other.remaining + lot.remaining)
            return joined
    joined.append(lot)
    joined.sort(key=_place)
    return joined


def _shelve(tx: Transaction, shelf: Shelf, lot: Lot) -> int:
    """Puts a lot in the tail; says how many lots that adds."""
    key = shelf.key(lot)
    there = tx.get(key)
    if there is not None:
        lot = changed(lot, remaining=lot.remaining + decode_lot(there).remaining)
    tx.set(key, encode(lot))
    return 1 if there is None else 0


def _unshelve(tx: Transaction, shelf: Shelf) -> list[Lot]:
    """Takes the next head from the tail."""
    lots = shelf.lots(tx, limit=HEAD_LOTS)
    for lot in lots:
        tx.clear(shelf.key(lot))
    return list(lots)
