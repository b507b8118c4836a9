"""Concurrent operations behave as if they had run one after another."""

from __future__ import annotations

import asyncio
import random
from functools import partial

from services.store.port import Operation, ReadTransaction, Store, Transaction
from tests.support.store_history import History
from tests.support.store_homes import Home

CLIENTS = 3


async def close_all(stores: list[Store]) -> None:
    for store in stores:
        await store.close()


async def test_a_history_of_concurrent_operations_is_strictly_serializable(
    home: Home, seed: int
) -> None:
    stores = await home.open_all(CLIENTS)
    history = History(seed)
    await history.run(stores, workers=24, rounds=20)
    await history.check(stores[0])
    await close_all(stores)


async def test_no_increment_of_a_value_that_was_read_is_lost(home: Home) -> None:
    stores = await home.open_all(CLIENTS)

    def increment(tx: Transaction) -> int:
        count = int(tx.get(b"count") or b"0") + 1
        tx.set(b"count", b"%d" % count)
        return count

    async def worker(number: int) -> list[tuple[int, int]]:
        store = stores[number % len(stores)]
        group = ("", "same", f"{number}")[number % 3]
        answers = [await store.commit(Operation(increment, group)) for _ in range(8)]
        return [(answer.result, answer.version) for answer in answers]

    answers = [answer for each in await asyncio.gather(*map(worker, range(20))) for answer in each]
    assert sorted(count for count, _ in answers) == list(range(1, 161))
    # In the order of the counts the versions never fall.
    assert [version for _, version in sorted(answers)] == sorted(version for _, version in answers)
    await close_all(stores)


async def test_transfers_keep_the_sum_and_every_reader_sees_it(home: Home, seed: int) -> None:
    stores = await home.open_all(CLIENTS)
    accounts = [b"account/%d" % number for number in range(5)]

    def open_accounts(tx: Transaction) -> None:
        for account in accounts:
            tx.set(account, b"100")

    def transfer(source: bytes, target: bytes, amount: int, tx: Transaction) -> bool:
        balances = [int(value or b"0") for value in tx.get_many([source, target])]
        if balances[0] < amount:
            return False
        tx.set(source, b"%d" % (balances[0] - amount))
        tx.set(target, b"%d" % (balances[1] + amount))
        return True

    def balances(tx: ReadTransaction) -> list[int]:
        return [int(value) for _, value in tx.range(b"account/", b"account0")]

    async def worker(number: int) -> None:
        dice, store = random.Random(f"{seed}/{number}"), stores[number % len(stores)]
        for _ in range(10):
            source, target = dice.sample(accounts, 2)
            run = partial(transfer, source, target, dice.randint(1, 80))
            await store.commit(Operation(run, source.decode(), (source, target)))
            found = (await store.read(balances)).result
            assert sum(found) == 500
            assert min(found) >= 0

    await stores[0].commit(Operation(open_accounts))
    await asyncio.gather(*map(worker, range(12)))
    assert sum((await stores[0].read(balances)).result) == 500
    await close_all(stores)


async def test_two_operations_that_each_depend_on_what_the_other_writes_do_not_both_go_ahead(
    home: Home,
) -> None:
    """Write skew: each may act only while the other has not."""
    stores = await home.open_all(2)

    def act(mine: bytes, other: bytes, tx: Transaction) -> bool:
        if tx.get(other) is not None:
            return False
        tx.set(mine, b"acted")
        return True

    for round_number in range(20):
        left, right = b"left/%d" % round_number, b"right/%d" % round_number
        answers = await asyncio.gather(
            stores[0].commit(Operation(partial(act, left, right))),
            stores[-1].commit(Operation(partial(act, right, left))),
        )
        assert sorted(answer.result for answer in answers) == [False, True]
    await close_all(stores)


async def test_an_operation_conflicts_with_keys_that_appear_in_a_range_it_read(home: Home) -> None:
    """Phantoms: of many that each want to be the only one, one succeeds."""
    stores = await home.open_all(CLIENTS)

    def claim(number: int, tx: Transaction) -> bool:
        if tx.range(b"claim/", b"claim0", limit=1):
            return False
        tx.set(b"claim/%d" % number, b"")
        return True

    answers = await asyncio.gather(
        *(
            stores[number % len(stores)].commit(Operation(partial(claim, number)))
            for number in range(12)
        )
    )
    assert sum(answer.result for answer in answers) == 1
    await close_all(stores)
