"""The order in which credit is spent: a purse's lots, the first few in it, the rest in its tail.

So a wallet stays small for an account with a thousand grants, and a debit reads and writes no more
than the wallet unless it uses up the whole head. Every lot of the head sorts before every lot of
the tail, and a purse with a tail has a head. Next to a debt there are no lots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.credits.records import LOTS, NEVER_US, OVERDRAFT_LOT, Lot, Purse, decode_lot
from services.store.port import ReadTransaction, Transaction
from services.store.records import changed, sealed_record

HEAD_LOTS = 16
"""How many lots stand in the purse at most."""

Sources = tuple[tuple[int, ...], ...]
"""Numbers of grants, amounts, and when the credit expires, if it does."""


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
        return tuple(decode_lot(key, value) for key, value in tx.range(begin, end, limit=limit))


def put(tx: Transaction, shelf: Shelf, purse: Purse, lot: Lot) -> None:
    """Adds a lot's credit to what is available: it pays the debt, or becomes a lot of the purse.

    It joins what is there at the same place. The caller's lot stays as it is.
    """
    purse.available += lot.remaining
    paid = min(purse.debt, lot.remaining)
    purse.debt -= paid
    if lot.remaining == paid:
        return
    lot = changed(lot, remaining=lot.remaining - paid)
    head = purse.head
    if purse.tail and place(lot) > place(head[-1]):
        purse.tail += _shelve(tx, shelf, lot)
        return
    _join(head, lot)
    if len(head) > HEAD_LOTS:
        purse.tail += _shelve(tx, shelf, head.pop())


def take(tx: Transaction, shelf: Shelf, purse: Purse, amount: int) -> list[Lot]:
    """Takes ``amount`` out of what is available, in spend order; says from where.

    What is not there becomes a debt, and a lot numbered OVERDRAFT_LOT of the answer.
    """
    taken: list[Lot] = []
    left, head = amount, purse.head
    purse.available -= amount
    while left and head:
        lot = head[0]
        if lot.remaining > left:
            taken.append(changed(lot, remaining=left))
            lot.remaining -= left
            return taken
        left -= lot.remaining
        taken.append(head.pop(0))
        _refill(tx, shelf, purse)
    if left:
        purse.debt += left
        taken.append(Lot(NEVER_US, 0, OVERDRAFT_LOT, left, left, 0))
    return taken


def take_due(tx: Transaction, shelf: Shelf, purse: Purse, now_us: int, limit: int) -> list[Lot]:
    """Takes at most ``limit`` lots whose time is over out of what is available."""
    due: list[Lot] = []
    head = purse.head
    while head and head[0].expire_us <= now_us and len(due) < limit:
        lot = head.pop(0)
        purse.available -= lot.remaining
        due.append(lot)
        _refill(tx, shelf, purse)
    return due


def withdraw(tx: Transaction, shelf: Shelf, purse: Purse, wanted: Lot) -> int:
    """Takes the lot at the place of ``wanted`` out of what is available; says how much it had."""
    for index, lot in enumerate(purse.head):
        if place(lot) == place(wanted):
            del purse.head[index]
            _refill(tx, shelf, purse)
            purse.available -= lot.remaining
            return lot.remaining
    key = shelf.key(wanted)
    stored = tx.get(key) if purse.tail else None
    if stored is None:
        return 0
    tx.clear(key)
    purse.tail -= 1
    remaining = decode_lot(key, stored).remaining
    purse.available -= remaining
    return remaining


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


def sources(taken: Sequence[Lot]) -> tuple[int, Sources]:
    """How an entry says where credit came from: the grant's number, if it was one, and the parts.

    No parts for one that does not expire: the number says it all. The expiry tells of which period
    a recurring grant's credit was.
    """
    parts: list[tuple[int, ...]] = []
    amount, before = 0, None
    for lot in taken:
        origin = (lot.number, lot.expire_us)
        if origin == before:
            parts.pop()
        else:
            amount, before = 0, origin
        amount += lot.remaining
        expires = () if lot.expire_us == NEVER_US else (lot.expire_us,)
        parts.append((lot.number, amount, *expires))
    numbers = {part[0] for part in parts}
    grant = numbers.pop() if len(numbers) == 1 else 0
    said = len(parts) == 1 and len(parts[0]) == 2
    return grant, () if said else tuple(parts)


def place(lot: Lot) -> tuple[int, int, int]:
    """Where a lot stands in the spend order; no two lots of a purse have the same."""
    return lot.expire_us, lot.priority, lot.number


def _join(head: list[Lot], lot: Lot) -> None:
    for other in head:
        if place(other) == place(lot):
            other.remaining += lot.remaining
            return
    head.append(lot)
    head.sort(key=place)


def _shelve(tx: Transaction, shelf: Shelf, lot: Lot) -> int:
    """Puts a lot in the tail; says how many lots that adds."""
    key = shelf.key(lot)
    there = tx.get(key)
    if there is not None:
        lot = changed(lot, remaining=lot.remaining + decode_lot(key, there).remaining)
    tx.set(key, sealed_record(key, lot))
    return 1 if there is None else 0


def _refill(tx: Transaction, shelf: Shelf, purse: Purse) -> None:
    """Takes the next head from the tail, when there is no head any more."""
    if purse.head or not purse.tail:
        return
    for lot in shelf.lots(tx, limit=HEAD_LOTS):
        tx.clear(shelf.key(lot))
        purse.head.append(lot)
    purse.tail -= len(purse.head)
