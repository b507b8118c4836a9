"""The spend order against a model: a plain sorted list of grants."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from services.credits import lots
from services.credits.lots import HEAD_LOTS, Shelf
from services.credits.records import NEVER_US, Lot, Purse
from services.store.open import open_store
from services.store.port import Operation, Store, Transaction
from tests.support.seeds import chosen_seed

SHELF = Shelf("alice", "credit")


class Game:
    """A purse, and what should be in it: what remains of each grant, by its place in the order."""

    def __init__(self, seed: int, store: Store) -> None:
        self.dice = random.Random(seed)
        self.store = store
        self.purse = Purse()
        self.model: dict[tuple[int, int, int], int] = {}
        self.taken: list[Lot] = []
        self.number = 0

    async def grant(self) -> None:
        self.number += 1
        dice = self.dice
        expire_us = dice.choice([NEVER_US, *range(0, 100, 10)])
        amount = dice.randrange(1, 20)
        await self._put(Lot(expire_us, dice.randrange(-2, 3), self.number, amount, amount, 0))

    async def give_back(self) -> None:
        if self.taken:
            await self._put(self.taken.pop(self.dice.randrange(len(self.taken))))

    async def take(self) -> None:
        amount = min(self.purse.available, self.dice.choice([0, 1, 10, 40, 1000]))
        taken = await self._change(lambda tx: lots.take(tx, SHELF, self.purse, amount))
        expected = []
        for place in sorted(self.model):
            part = min(amount, self.model[place])
            if part:
                expected.append((place[2], part))
            amount -= part
            self.model[place] -= part
        self.model = {place: rest for place, rest in self.model.items() if rest}
        assert [(lot.number, lot.remaining) for lot in taken] == expected
        self.taken.extend(taken)

    async def expire(self) -> None:
        now_us, limit = self.dice.randrange(-30, 30), self.dice.randrange(1, 30)
        due = await self._change(lambda tx: lots.take_due(tx, SHELF, self.purse, now_us, limit))
        places = [place for place in sorted(self.model) if place[0] <= now_us][:limit]
        expected = [(place[2], self.model.pop(place)) for place in places]
        assert [(lot.number, lot.remaining) for lot in due] == expected

    async def check(self) -> None:
        tail = (await self.store.read(SHELF.lots)).result
        found = [(_place(lot), lot.remaining) for lot in (*self.purse.head, *tail)]
        assert found == sorted(self.model.items())
        assert (self.purse.tail, self.purse.available) == (len(tail), sum(self.model.values()))
        assert len(self.purse.head) <= HEAD_LOTS
        assert self.purse.head or not tail

    async def _put(self, lot: Lot) -> None:
        await self.store.commit(Operation(lambda tx: lots.put(tx, SHELF, self.purse, lot)))
        self.model[_place(lot)] = self.model.get(_place(lot), 0) + lot.remaining

    async def _change(self, run: Callable[[Transaction], list[Lot]]) -> list[Lot]:
        return (await self.store.commit(Operation(run))).result


def _place(lot: Lot) -> tuple[int, int, int]:
    return lot.expire_us, lot.priority, lot.number


@pytest.mark.parametrize("attempt", range(5))
async def test_credit_is_taken_in_spend_order_whatever_happened_before(attempt: int) -> None:
    seed = chosen_seed() if attempt else 0
    store = await open_store("simulated:?faults=none")
    game = Game(seed, store)
    for _ in range(400):
        moves = [game.grant, game.grant, game.give_back, game.give_back, game.take, game.expire]
        await game.dice.choice(moves)()
        await game.check()
    assert game.number > 2 * HEAD_LOTS
    await store.close()


def test_lots_are_cut_where_an_amount_ends() -> None:
    made = [Lot(NEVER_US, 0, number, 10, 10, 0) for number in range(1, 4)]
    for amount in range(31):
        first, rest = lots.split(made, amount)
        assert sum(lot.remaining for lot in first) == amount
        assert sum(lot.remaining for lot in rest) == 30 - amount
        assert all(lot.remaining for lot in (*first, *rest))
