"""Unknown results around databases that work, a real cluster included: still exactly once."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from services.store.engines.foundationdb import FoundationDatabase, destroy
from services.store.engines.simulated import NO_FAULTS, SimulatedCluster, SimulatedDatabase
from services.store.group_commit import GroupCommit
from services.store.optimistic import Database, OptimisticEngine
from services.store.port import Operation, Store, Transaction
from services.store.turns import Lines
from tests.support.store_history import History
from tests.support.unreliable_database import UnreliableDatabase

CLIENTS = 2


@pytest.fixture(params=["simulated", pytest.param("foundationdb", marks=pytest.mark.fdb)])
async def databases(request: pytest.FixtureRequest, seed: int) -> AsyncIterator[list[Database]]:
    """Connections of several clients to the same data."""
    if request.param == "simulated":
        cluster = SimulatedCluster(seed, NO_FAULTS)
        yield [SimulatedDatabase(cluster) for _ in range(CLIENTS)]
        return
    file = os.environ.get("FDB_CLUSTER_FILE")
    if not file:
        pytest.fail("FDB_CLUSTER_FILE names no cluster", pytrace=False)
    name = f"tollmesh-test-{secrets.token_hex(8)}"
    try:
        yield [await FoundationDatabase.open(Path(file), name) for _ in range(CLIENTS)]
    finally:
        await destroy(Path(file), name)


@pytest.fixture
def unreliable(databases: list[Database], seed: int) -> list[UnreliableDatabase]:
    return [UnreliableDatabase(each, seed + n, 0.5) for n, each in enumerate(databases)]


@pytest.fixture
async def stores(unreliable: list[UnreliableDatabase]) -> AsyncIterator[list[Store]]:
    stores: list[Store] = []
    for number, database in enumerate(unreliable):
        client = bytes([number])
        turns = Lines(database, client, 4)
        engine = OptimisticEngine(
            database, client=client, lanes=4, readers=4, budget_s=60, turns=turns
        )
        stores.append(GroupCommit(engine))
    yield stores
    for store in stores:
        await store.close()


async def test_blind_writes_are_applied_exactly_once(
    stores: list[Store], unreliable: list[UnreliableDatabase]
) -> None:
    def append(name: str, tx: Transaction) -> None:
        tx.append(b"log/", name.encode())
        tx.add(b"count", 1)

    async def worker(number: int) -> None:
        for each in range(5):
            operation = Operation(partial(append, f"{number}-{each}"), f"{number % 3}")
            await stores[number % CLIENTS].commit(operation)

    await asyncio.gather(*map(worker, range(8)))
    for database in unreliable:
        await database.everything_lands()
    log = (await stores[0].read(lambda tx: tx.range(b"log/", b"log0"))).result
    assert sorted(value for _, value in log) == sorted(
        f"{number}-{each}".encode() for number in range(8) for each in range(5)
    )
    count = (await stores[1].read(lambda tx: tx.get(b"count"))).result
    assert count == (40).to_bytes(8, "little")


async def test_a_history_is_strictly_serializable(
    stores: list[Store], unreliable: list[UnreliableDatabase], seed: int
) -> None:
    history = History(seed)
    await history.run(stores, workers=8, rounds=8)
    for database in unreliable:
        await database.everything_lands()
    await history.check(stores[0])
