"""Operations that wait together are committed together; an idle store waits for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import pytest

from services.store.engine import Work
from services.store.errors import StoreOverloadedError, StoreUnavailableError
from services.store.group_commit import MAX_BATCH_BYTES, GroupCommit, Limits
from services.store.layer import Layer, Snapshot
from services.store.port import Committed, Operation, Transaction
from tests.support.deadline import DEADLINE_S
from tests.support.store_model import Model

T = TypeVar("T")


class OpenEngine:
    """An engine in memory whose commits wait until the test lets them end."""

    lanes = 2

    def __init__(self) -> None:
        self.data = Model()
        self.layers: list[Layer] = []
        self.reads: list[list[bytes]] = []
        self.failures: list[Exception] = []
        self.going = asyncio.Event()
        self.going.set()
        self.begun = asyncio.Condition()

    async def committing(self, transactions: int) -> None:
        """Waits until so many transactions have begun."""
        async with asyncio.timeout(DEADLINE_S), self.begun:
            await self.begun.wait_for(lambda: len(self.layers) >= transactions)

    async def ready(self, lane: int) -> None:
        pass

    async def transact(self, lane: int, reads: Sequence[bytes], work: Work[T]) -> tuple[T, int]:
        del lane
        self.reads.append(list(reads))
        if self.failures:
            raise self.failures.pop(0)
        layer, value = work(self.data)
        self.layers.append(layer)
        version = len(self.layers)
        for key, written in layer.values.items():
            self.data.set(key, written or b"")
        async with self.begun:
            self.begun.notify_all()
        await self.going.wait()
        return value, version

    async def read(self, run: Callable[[Snapshot], T]) -> tuple[T, int]:
        return run(self.data), len(self.layers)

    async def close(self) -> None:
        pass


def put(key: bytes, value: bytes, tx: Transaction) -> None:
    tx.set(key, value)


async def test_what_arrives_during_a_commit_is_committed_together_behind_it() -> None:
    engine = OpenEngine()
    store = GroupCommit(engine)
    engine.going.clear()
    first = asyncio.create_task(store.commit(Operation(partial(put, b"0", b""), "g", (b"0",))))
    await engine.committing(1)
    others = []
    for key in (b"%d" % number for number in range(1, 50)):
        operation = Operation(partial(put, key, b""), "g", (key,))
        others.append(asyncio.create_task(store.commit(operation)))
    await asyncio.sleep(0)
    engine.going.set()
    assert (await first).version == 1
    assert {(await task).version for task in others} == {2}
    assert [len(layer.values) for layer in engine.layers] == [1, 49]
    assert engine.reads == [[b"0"], [b"%d" % n for n in range(1, 50)]]


async def test_operations_that_a_busy_loop_brings_one_by_one_are_committed_together() -> None:
    engine = OpenEngine()
    store = GroupCommit(engine)

    async def after(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return (await store.commit(Operation(partial(put, b"%d" % turns, b""), "g"))).version

    assert await asyncio.gather(*(after(2 * number) for number in range(30))) == [1] * 30
    assert await store.commit(Operation(partial(put, b"late", b""), "g")) == Committed(None, 2)


async def test_a_loop_that_is_busy_for_ever_delays_no_commit_for_ever() -> None:
    engine = OpenEngine()
    store = GroupCommit(engine)
    first = asyncio.create_task(store.commit(Operation(partial(put, b"first", b""), "g")))
    others: list[asyncio.Task[Committed[None]]] = []
    async with asyncio.timeout(DEADLINE_S):
        while not first.done():
            operation = Operation(partial(put, b"%d" % len(others), b""), "g")
            others.append(asyncio.create_task(store.commit(operation)))
            await asyncio.sleep(0)
    await asyncio.gather(*others)
    assert len(engine.layers[0].values) < 100


async def test_lanes_commit_side_by_side_and_a_group_stays_in_its_lane() -> None:
    engine = OpenEngine()
    store = GroupCommit(engine)
    engine.going.clear()
    tasks = [
        asyncio.create_task(store.commit(Operation(partial(put, b"%d" % n, b""), f"group {n % 7}")))
        for n in range(70)
    ]
    await engine.committing(engine.lanes)
    lanes = [{int(key) % 7 for key in layer.values} for layer in engine.layers]
    assert lanes[0] | lanes[1] == set(range(7))
    assert not lanes[0] & lanes[1]
    engine.going.set()
    await asyncio.gather(*tasks)


async def test_an_engine_transaction_stays_within_its_limits() -> None:
    engine = OpenEngine()
    store = GroupCommit(engine, Limits(batch_operations=10))
    await asyncio.gather(
        *(store.commit(Operation(partial(put, b"%d" % n, b""), "g")) for n in range(25))
    )
    assert [len(layer.values) for layer in engine.layers] == [10, 10, 5]
    engine.layers.clear()
    value = b"v" * 90_000
    await asyncio.gather(
        *(store.commit(Operation(partial(put, b"%d" % n, value), "g")) for n in range(10))
    )
    sizes = [sum(len(value or b"") for value in each.values.values()) for each in engine.layers]
    assert max(sizes) <= MAX_BATCH_BYTES
    assert len(sizes) == 2


@pytest.mark.parametrize("failure", [StoreUnavailableError("gone"), RuntimeError("a bug")])
async def test_an_engine_that_fails_fails_what_it_was_given_and_nothing_later(
    failure: Exception,
) -> None:
    engine = OpenEngine()
    engine.failures.append(failure)
    store = GroupCommit(engine)
    outcomes = await asyncio.gather(
        *(store.commit(Operation(partial(put, b"k", b""), "g")) for _ in range(3)),
        return_exceptions=True,
    )
    assert all(isinstance(outcome, StoreUnavailableError) for outcome in outcomes)
    assert (await store.commit(Operation(partial(put, b"k", b""), "g"))).version == 1


async def test_a_full_queue_refuses_until_it_has_room_again() -> None:
    engine = OpenEngine()
    store = GroupCommit(engine, Limits(waiting_operations=3))
    engine.going.clear()
    tasks = [
        asyncio.create_task(store.commit(Operation(partial(put, b"%d" % n, b"")))) for n in range(3)
    ]
    await asyncio.sleep(0)
    with pytest.raises(StoreOverloadedError):
        await store.commit(Operation(partial(put, b"refused", b"")))
    engine.going.set()
    await asyncio.gather(*tasks)
    await store.commit(Operation(partial(put, b"accepted", b"")))
    assert engine.data.get(b"refused") is None
