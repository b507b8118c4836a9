"""A real history of concurrent operations, and the check that it is strictly serializable.

Each operation makes random steps on a few keys, answers with everything that it read, and appends
its name to a log. The log is the order in which the store claims to have run them. Three things
must hold. Run one after another in that order, the same steps on a simple map read the same. An
operation that was answered before another began stands before it. Versions rise along the log, and
a read at a version saw the map as it was after exactly the operations up to that version.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from services.store.port import Operation, ReadTransaction, Store, Transaction
from tests.support.store_model import Model, Step, random_steps, run_steps

LOG = b"zlog/"
LOG_END = b"zlog0"
_GROUPS = ("", "", "red", "green", "blue")


class RefusedError(Exception):
    """What some operations raise on purpose, after writing."""


@dataclass(slots=True)
class _Done:
    """An operation that was answered."""

    steps: Sequence[Step]
    answers: list[object]
    version: int
    begin: int
    end: int
    """When it was called and answered: the ticks of a clock that each event moves on."""


@dataclass(slots=True)
class _Seen:
    """A read that was answered."""

    pairs: list[tuple[bytes, bytes]]
    version: int
    begin: int


@dataclass(slots=True)
class History:
    """What several clients did at once."""

    seed: int
    _clock: int = 0
    _done: dict[str, _Done] = field(default_factory=dict)
    _seen: list[_Seen] = field(default_factory=list)

    async def run(self, stores: Sequence[Store], *, workers: int, rounds: int) -> None:
        """Lets workers, spread over the stores, each do so many things one after another."""
        await asyncio.gather(
            *(
                self._work(stores[number % len(stores)], f"{number}", rounds)
                for number in range(workers)
            )
        )

    async def _work(self, store: Store, worker: str, rounds: int) -> None:
        dice = random.Random(f"{self.seed}/{worker}")
        for round_number in range(rounds):
            kind = dice.random()
            if kind < 0.2:
                await self._read(store)
            elif kind < 0.3:
                await self._refused(store, random_steps(dice), dice.choice(_GROUPS))
            else:
                name = f"{worker}-{round_number}"
                await self._commit(store, name, random_steps(dice), dice.choice(_GROUPS))

    async def _commit(self, store: Store, name: str, steps: Sequence[Step], group: str) -> None:
        begin = self._tick()
        committed = await store.commit(Operation(partial(_logged, name, steps), group))
        self._done[name] = _Done(steps, committed.result, committed.version, begin, self._tick())

    async def _refused(self, store: Store, steps: Sequence[Step], group: str) -> None:
        def run(tx: Transaction) -> None:
            _logged("refused", steps, tx)
            raise RefusedError

        try:
            await store.commit(Operation(run, group))
        except RefusedError:
            return
        raise AssertionError("an operation that raised was answered as if it had not")

    async def _read(self, store: Store) -> None:
        begin = self._tick()
        read = await store.read(_everything)
        self._seen.append(_Seen(read.result, read.version, begin))

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    async def check(self, store: Store) -> None:
        """Checks the whole history; see the module."""
        entries = (await store.read(lambda tx: tx.range(LOG, LOG_END))).result
        log = [value.decode() for _, value in entries]
        assert sorted(log) == sorted(self._done), "an operation is missing, twice or uncalled for"
        order = [self._done[name] for name in log]
        _check_real_time(order)
        states = _replay(order)
        for seen in self._seen:
            last = max(version for version in states if version <= seen.version)
            assert seen.pairs == states[last], f"a read at {seen.version} saw another state"
        for done in order:
            stale = [s for s in self._seen if done.end < s.begin and s.version < done.version]
            assert not stale, f"a read did not see {done.version}, which was answered before"
        assert (await store.read(_everything)).result == states[max(states)]


def _everything(tx: ReadTransaction) -> list[tuple[bytes, bytes]]:
    return tx.range(b"", LOG)


def _logged(name: str, steps: Sequence[Step], tx: Transaction) -> list[object]:
    answers = run_steps(steps, tx)
    tx.append(LOG, name.encode())
    return answers


def _check_real_time(order: Sequence[_Done]) -> None:
    latest_begin, version = 0, 0
    for done in order:
        assert done.end > latest_begin, "an operation stands behind one that began after its end"
        assert done.version >= version, "versions fall along the log"
        latest_begin, version = max(latest_begin, done.begin), done.version


def _replay(order: Sequence[_Done]) -> dict[int, list[tuple[bytes, bytes]]]:
    """The state after each version, by running the history on a simple map."""
    model = Model()
    states: dict[int, list[tuple[bytes, bytes]]] = {0: []}
    for done in order:
        assert run_steps(done.steps, model) == done.answers, "an operation read what never was"
        states[done.version] = model.range(b"", LOG)
    return states
