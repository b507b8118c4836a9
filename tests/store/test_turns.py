"""Clients that commit to the same lane take turns, and none waits for one that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.store import turns
from services.store.engines.simulated import NO_FAULTS, SimulatedCluster, SimulatedDatabase
from services.store.layer import Layer
from services.store.optimistic import Conflict, Database, OptimisticEngine
from services.store.turns import LINES, LOSSES, Lines
from tests.support.deadline import DEADLINE_S

LANE = 2
MARKER = b"\xffmarker/"


@pytest.fixture
def database() -> Database:
    return SimulatedDatabase(SimulatedCluster(1, NO_FAULTS))


async def tickets(database: Database) -> list[bytes]:
    """The clients in the lane's line, in no order."""
    begin, end = LINES + bytes([LANE]), LINES + bytes([LANE + 1])
    pairs = await database.begin().run((), lambda snapshot: snapshot.range(begin, end))
    return [key.removeprefix(begin) for key, _ in pairs]


async def until_standing(database: Database, name: bytes) -> None:
    """Waits for a ticket; each look lets others go on."""
    async with asyncio.timeout(DEADLINE_S):
        while name not in await tickets(database):
            pass


async def commit(database: Database, lines: Lines, name: bytes) -> None:
    """Commits a turn."""

    def work(snapshot: object) -> Layer:
        del snapshot
        layer = Layer(None)  # type: ignore[arg-type]  # nothing is read through it
        layer.set(b"last", name)
        return layer

    attempt = database.begin()
    layer = await attempt.run(lines.reads(LANE), work)
    lines.leave(LANE, layer)
    await attempt.commit(layer, MARKER + name, bytes(8))
    lines.over(LANE)


async def loser(database: Database, name: bytes) -> Lines:
    """A client that lost often enough, and whose turn has come."""
    lines = Lines(database, name, LANE + 1)
    for _ in range(LOSSES):
        await lines.lost(LANE)
    return lines


@asynccontextmanager
async def standing(database: Database, name: bytes) -> AsyncIterator[asyncio.Task[Lines]]:
    """A client that stands in line behind others."""
    task = asyncio.create_task(loser(database, name))
    await until_standing(database, name)
    yield task
    assert task.done()


async def test_who_stands_in_line_goes_on_in_the_order_of_coming(database: Database) -> None:
    first = await loser(database, b"first")
    async with standing(database, b"second") as second, standing(database, b"third") as third:
        await commit(database, first, b"first")
        lines = await second
        assert not third.done()
        assert sorted(await tickets(database)) == [b"second", b"third"]
        await commit(database, lines, b"second")
        await commit(database, await third, b"third")
    assert await tickets(database) == []


async def test_a_client_without_conflicts_stands_in_no_line(database: Database) -> None:
    lines = Lines(database, b"alone", LANE + 1)
    for _ in range(3):
        await lines.come(LANE)
        assert await tickets(database) == []
        await commit(database, lines, b"alone")


async def test_a_ticket_makes_those_conflict_who_do_not_stand_in_line(database: Database) -> None:
    free = Lines(database, b"free", LANE + 1)
    attempt = database.begin()
    layer = await attempt.run(free.reads(LANE), Layer)
    layer.set(b"k", b"v")
    waiting = await loser(database, b"waiting")
    with pytest.raises(Conflict):
        await attempt.commit(layer, MARKER, bytes(8))
    # One conflict is enough to look, and to stand behind whoever is there.
    lost = asyncio.create_task(free.lost(LANE))
    await until_standing(database, b"free")
    assert not lost.done()
    await commit(database, waiting, b"waiting")
    await lost
    await commit(database, free, b"free")


async def test_a_client_that_died_in_line_is_passed_over_and_its_ticket_removed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PATIENCE_S", 0.02)
    await loser(database, b"dead")
    lines = await loser(database, b"alive")
    assert sorted(await tickets(database)) == [b"alive", b"dead"]
    await commit(database, lines, b"alive")
    assert await tickets(database) == []


async def test_a_client_that_finds_nobody_before_it_leaves_the_line_in_the_end(
    database: Database,
) -> None:
    lines = await loser(database, b"alone")
    taken = 0
    while b"alone" in await tickets(database):
        taken += 1
        await commit(database, lines, b"alone")
        await lines.come(LANE)
    assert taken == turns.CALM


async def test_an_operation_that_writes_nothing_gives_its_turn_back(database: Database) -> None:
    lines = await loser(database, b"reader")
    engine = OptimisticEngine(database, client=b"reader", lanes=LANE + 1, readers=1, turns=lines)
    await engine.transact(LANE, (), lambda snapshot: (Layer(snapshot), None))
    assert await tickets(database) == []
    await engine.close()
