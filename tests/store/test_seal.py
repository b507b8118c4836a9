"""An operation may grow until it is sealed, which happens once, before it runs."""

from __future__ import annotations

import asyncio
from functools import partial

from services.store.open import open_store
from services.store.port import Operation, Transaction


async def test_an_operation_that_waits_may_grow_until_it_is_sealed() -> None:
    store = await open_store("simulated:?faults=none")
    names: list[str] = ["first"]
    seals: list[int] = []

    def run(tx: Transaction) -> int:
        tx.set(b"names", ",".join(names).encode())
        return len(names)

    busy = asyncio.create_task(store.commit(Operation(lambda tx: tx.set(b"a", b""), "group")))
    growing = Operation(run, "group", seal=lambda: seals.append(len(names)))
    waiting = asyncio.create_task(store.commit(growing))
    await asyncio.sleep(0)
    assert not seals
    names.append("second")
    await busy
    assert (await waiting).result == 2
    assert seals == [2]
    await store.close()


async def test_an_operation_is_sealed_once_even_if_it_runs_again() -> None:
    store = await open_store("simulated:?seed=7")
    seals: list[int] = []
    runs = 0

    def run(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        tx.set(b"a", tx.get(b"b") or b"")

    for number in range(100):
        await store.commit(Operation(run, "group", seal=partial(seals.append, number)))
    assert seals == list(range(100))
    assert runs > 100
    await store.close()


async def test_an_operation_to_which_callers_still_come_is_waited_for() -> None:
    store = await open_store("simulated:?faults=none")
    callers = 0
    sealed_with: list[int] = []

    def weight() -> int:
        nonlocal callers
        callers += 1
        return min(callers, 30)

    def seal() -> None:
        sealed_with.append(callers)

    await store.commit(Operation(lambda tx: tx.set(b"a", b""), "group", seal=seal, weight=weight))
    assert sealed_with[0] >= 30
    await store.close()
