"""The clock of records: it counts what really passed, whoever runs, starts, ends or hangs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from services.store import requests
from services.store.errors import StoreError, StoreUnavailableError
from services.store.open import open_store
from services.store.port import Committed, Operation, Store, T, Transaction
from services.store.retention import LONGEST_STEP_S, STEP_S, Retention
from tests.support.deadline import DEADLINE_S
from tests.support.seeds import chosen_seed

SECOND_US = 1_000_000
WALL_US = 1_800_000_000 * SECOND_US


class Machine:
    """Real time, and processes whose monotonic clocks begin anywhere."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now_s = 0.0

    async def process(self, *, starts_at_s: float = 0, wall_us: int = WALL_US) -> Retention:
        began_s = self.now_s
        return await Retention.open(
            self.store,
            "test",
            wall_us=lambda: wall_us,
            monotonic=lambda: starts_at_s + self.now_s - began_s,
        )

    async def run(self, process: Retention, seconds: float, every_s: float = 1) -> int:
        for _ in range(round(seconds / every_s)):
            self.now_s += every_s
            await process.advance(self.store)
        return process.past_us


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    store = await open_store("simulated:?faults=none")
    yield Machine(store)
    await store.close()


async def test_it_goes_on_with_what_passes_from_the_wall_clock_of_the_first_start(
    machine: Machine,
) -> None:
    process = await machine.process(starts_at_s=1e6)
    assert process.now_us() == WALL_US
    past_us = await machine.run(process, 3600)
    assert process.now_us() == WALL_US + 3600 * SECOND_US
    behind_s = (process.now_us() - past_us) / SECOND_US
    assert LONGEST_STEP_S <= behind_s <= LONGEST_STEP_S + STEP_S


@pytest.mark.parametrize("wall_us", [0, -1, WALL_US - 10**14, WALL_US + 10**14])
async def test_a_later_start_goes_on_from_there_whatever_its_wall_clock_shows(
    machine: Machine, wall_us: int
) -> None:
    first = await machine.process()
    await machine.run(first, 600)
    later = await machine.process(starts_at_s=5, wall_us=wall_us)
    assert first.now_us() - STEP_S * SECOND_US <= later.now_us() <= first.now_us()


async def test_a_damaged_record_of_it_is_a_new_beginning(machine: Machine) -> None:
    process = await machine.process()

    def damage(tx: Transaction) -> None:
        ((key, value),) = tx.range(b"", b"\xff")
        tx.set(key, bytes([value[0] ^ 0x40]) + value[1:])

    await machine.run(process, 600)
    before_us = process.now_us()
    await machine.store.commit(Operation(damage))
    assert (await machine.process(wall_us=WALL_US)).now_us() == WALL_US
    await machine.run(process, 600)
    assert process.now_us() == before_us + 600 * SECOND_US


async def test_a_new_store_takes_a_wall_clock_before_1970_for_1970(machine: Machine) -> None:
    assert (await machine.process(wall_us=-5)).now_us() == 0


async def test_what_passed_while_nobody_swept_counts_a_step_at_most(machine: Machine) -> None:
    process = await machine.process()
    before_us = process.past_us
    machine.now_s += 30 * 24 * 3600
    assert await process.advance(machine.store) == before_us + LONGEST_STEP_S * SECOND_US


async def test_a_store_that_fails_for_a_while_is_caught_up_with(machine: Machine) -> None:
    class Failing:
        read, close = machine.store.read, machine.store.close

        async def commit(self, operation: Operation[T]) -> Committed[T]:
            del operation
            raise StoreUnavailableError("for now")

    process = await machine.process()
    before_us = process.past_us
    machine.now_s += STEP_S
    with pytest.raises(StoreUnavailableError):
        await process.advance(Failing())
    assert process.past_us == before_us
    assert await process.advance(machine.store) == before_us + STEP_S * SECOND_US


async def test_an_idle_service_writes_once_a_step(machine: Machine) -> None:
    process = await machine.process()

    async def version() -> int:
        return (await machine.store.read(lambda _: None)).version

    before = await version()
    await machine.run(process, STEP_S - 1)
    assert await version() == before
    await machine.run(process, 1)
    assert await version() > before


async def test_it_goes_on_while_a_sweeper_rests_for_long(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "STEP_S", 0.001)
    process = await machine.process()
    records = requests.RequestRecords("test", keep_s=0, retention=process)
    sweeping = asyncio.create_task(
        requests.sweep_for_ever(
            machine.store, records, every_s=1e6, now_us=lambda: 0, failed=_unexpected
        )
    )
    before_us = process.past_us
    async with asyncio.timeout(DEADLINE_S):
        for steps in range(1, 6):
            machine.now_s += STEP_S
            while process.past_us < before_us + steps * STEP_S * SECOND_US:  # noqa: ASYNC110 (has no event)
                await asyncio.sleep(0.001)
    sweeping.cancel()
    await asyncio.wait([sweeping])


def _unexpected(error: StoreError) -> None:
    raise error


@pytest.mark.parametrize("attempt", range(20))
async def test_no_record_may_go_before_its_time_whichever_processes_make_and_sweep_it(
    machine: Machine, attempt: int
) -> None:
    """Processes start and end, and hang for long with what they knew: none is ever too early."""
    seed = chosen_seed() + attempt
    dice = random.Random(seed)
    keep_s = dice.choice([0, 50, 1000])
    processes = [await machine.process(starts_at_s=dice.random() * 1e6)]
    made: list[tuple[float, int]] = []
    swept = 0
    for _ in range(400):
        machine.now_s += dice.choice([0.1, 1, 10, 100, dice.random() * 2000])
        process = dice.choice(processes)
        action = dice.randrange(6)
        if action == 0 and len(processes) < 4:
            wall_us = dice.randrange(2 * WALL_US)
            processes.append(await machine.process(starts_at_s=dice.random(), wall_us=wall_us))
        elif action == 1 and len(processes) > 1:
            processes.remove(process)
        elif action == 2:
            made.append((machine.now_s, process.now_us() + keep_s * SECOND_US))
        else:
            past_us = await process.advance(machine.store)
            for moment_s, due_us in made:
                if due_us <= past_us:
                    swept += 1
                    assert machine.now_s - moment_s >= keep_s
            made = [record for record in made if record[1] > past_us]
    assert swept
