"""Commits that end unknown are resolved: never applied twice by one call, never lost."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import pytest

from services.store.engines.simulated import NO_FAULTS, Faults, SimulatedCluster
from services.store.errors import StoreUnavailableError
from services.store.group_commit import GroupCommit
from services.store.optimistic import MARKERS
from services.store.port import Operation, ReadTransaction, Store, Transaction
from tests.support.store_history import History

SEEDS = range(12)
LATE_ONLY = Faults(0.0, 0.0, 0.0, 0.0, 0.6)
FAULTS = {
    "none": NO_FAULTS,
    "conflicts": Faults(0.6, 0.3, 0.0, 0.0, 0.0),
    "applied": Faults(0.0, 0.0, 0.6, 0.0, 0.0),
    "lost": Faults(0.0, 0.0, 0.0, 0.6, 0.0),
    "late": LATE_ONLY,
    "everything": Faults(0.2, 0.2, 0.2, 0.2, 0.2),
}


def append(name: str, tx: Transaction) -> str:
    """Writes without reading, so nothing but the marker keeps it from being applied twice."""
    tx.append(b"log/", name.encode())
    tx.add(b"count", 1)
    return name


async def everything_lands(cluster: SimulatedCluster) -> None:
    """Gives late commits the time to land."""
    for _ in range(50):
        await cluster.delay()


async def log_of(store: Store) -> list[str]:
    def look(tx: ReadTransaction) -> list[str]:
        log = [value.decode() for _, value in tx.range(b"log/", b"log0")]
        assert int.from_bytes(tx.get(b"count") or b"", "little") == len(log)
        return log

    return (await store.read(look)).result


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
async def test_each_operation_is_applied_exactly_once(faults: Faults, seed: int) -> None:
    cluster = SimulatedCluster(seed, faults)
    stores = [GroupCommit(cluster.engine()) for _ in range(2)]
    dice = random.Random(seed)

    async def worker(number: int) -> None:
        for round_number in range(6):
            name = f"{number}-{round_number}"
            operation = Operation(partial(append, name), dice.choice(("", "a", "b")))
            answer = await stores[number % 2].commit(operation)
            assert answer.result == name

    await asyncio.gather(*map(worker, range(8)))
    await everything_lands(cluster)
    expected = sorted(f"{number}-{each}" for number in range(8) for each in range(6))
    assert sorted(await log_of(stores[0])) == expected
    for store in stores:
        await store.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_histories_are_strictly_serializable_whatever_fails(seed: int) -> None:
    cluster = SimulatedCluster(seed, FAULTS["everything"])
    stores = [GroupCommit(cluster.engine()) for _ in range(3)]
    history = History(seed)
    await history.run(stores, workers=12, rounds=12)
    await everything_lands(cluster)
    await history.check(stores[0])
    for store in stores:
        await store.close()


async def test_the_version_of_a_commit_that_ended_unknown_is_the_one_it_has() -> None:
    cluster = SimulatedCluster(1, Faults(0.0, 0.0, 1.0, 0.0, 0.0))
    store = GroupCommit(cluster.engine())
    answer = await store.commit(Operation(partial(append, "a")))
    assert await log_of(store) == ["a"]
    read = await store.read(lambda tx: tx.get(b"count"))
    assert answer.version == read.version
    await store.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_an_answer_tells_what_happened_even_of_an_operation_that_is_not_pure(
    seed: int,
) -> None:
    cluster = SimulatedCluster(seed, Faults(0.0, 0.0, 0.0, 0.0, 1.0))
    store = GroupCommit(cluster.engine())
    runs = 0

    def run(tx: Transaction) -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            tx.set(b"first", b"attempt")
        else:
            cluster.faults = Faults(0.0, 0.0, 0.0, 0.0, 0.0)  # what is late may land from now on
        return runs

    answer = await store.commit(Operation(run))
    await everything_lands(cluster)
    found = (await store.read(lambda tx: tx.get(b"first"))).result
    assert (answer.result == 1) == (found is not None)
    await store.close()


@pytest.mark.parametrize("seed", range(30))
async def test_the_answer_is_that_of_the_attempt_which_was_committed(seed: int) -> None:
    cluster = SimulatedCluster(seed, Faults(0.1, 0.0, 0.1, 0.1, 0.5, landing=0.1))
    store = GroupCommit(cluster.engine())
    runs = 0

    def run(tx: Transaction) -> int:
        nonlocal runs
        runs += 1
        tx.set(b"by", b"%d" % runs)
        return runs

    answer = await store.commit(Operation(run))
    await everything_lands(cluster)
    assert (await store.read(lambda tx: tx.get(b"by"))).result == b"%d" % answer.result
    await store.close()


async def test_a_cluster_out_of_reach_is_reported_and_used_again_when_it_is_back() -> None:
    cluster = SimulatedCluster(1, NO_FAULTS)
    store = GroupCommit(cluster.engine(budget_s=0.05))
    await store.commit(Operation(partial(append, "before")))
    cluster.reachable = False
    outcomes = await asyncio.gather(
        store.commit(Operation(partial(append, "during"))),
        store.read(lambda tx: tx.get(b"count")),
        return_exceptions=True,
    )
    assert all(isinstance(outcome, StoreUnavailableError) for outcome in outcomes)
    cluster.reachable = True
    await store.commit(Operation(partial(append, "after")))
    assert await log_of(store) == ["before", "after"]
    await store.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_an_outcome_that_stays_unknown_is_reported_and_applied_at_most_once(
    seed: int,
) -> None:
    cluster = SimulatedCluster(seed, Faults(0.0, 0.0, 0.0, 0.0, 1.0, landing=0.0))
    store = GroupCommit(cluster.engine(budget_s=0.02))
    with pytest.raises(StoreUnavailableError):
        await store.commit(Operation(partial(append, "unknown"), "g"))
    cluster.faults = NO_FAULTS
    await store.commit(Operation(partial(append, "later"), "g"))
    await everything_lands(cluster)
    assert await log_of(store) in (["later"], ["unknown", "later"])
    await store.close()


async def test_markers_stay_out_of_the_way_of_users_keys() -> None:
    cluster = SimulatedCluster(1, NO_FAULTS)
    store = GroupCommit(cluster.engine())
    await store.commit(Operation(lambda tx: tx.set(b"k", b"v")))
    await store.commit(Operation(lambda tx: tx.clear_range(b"", b"\xff\xff\xff")))
    assert (await store.read(lambda tx: tx.range(b"", b"\xff\xff\xff"))).result == []
    assert cluster.data.between(MARKERS, b"\xff\xff")
    await store.close()


async def test_the_same_seed_repeats_a_run_exactly() -> None:
    async def outcome(seed: int) -> list[tuple[int, str]]:
        cluster = SimulatedCluster(seed, FAULTS["everything"])
        store = GroupCommit(cluster.engine())
        operations = [Operation(partial(append, f"{n}"), f"{n % 3}") for n in range(20)]
        answers = await asyncio.gather(*map(store.commit, operations))
        await store.close()
        return [(answer.version, answer.result) for answer in answers]

    assert await outcome(5) == await outcome(5)
    assert await outcome(5) != await outcome(6)
