"""A database whose commits end unknown now and then, around one that works.

Unlike the simulated cluster's own faults, these befall any database, a real cluster included: a
commit is applied and reported as unknown, or never sent, or sent after its client gave it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from services.store.layer import Layer, Snapshot
from services.store.optimistic import Attempt, AttemptFailed, CommitUnknown, Database

T = TypeVar("T")


class UnreliableDatabase:
    """See the module. ``unknown`` is the probability that a commit ends so."""

    def __init__(self, database: Database, seed: int, unknown: float) -> None:
        self._database = database
        self._dice = random.Random(seed)
        self._unknown = unknown
        self._late: list[asyncio.Task[None]] = []

    def begin(self) -> Attempt:
        return _UnreliableAttempt(self, self._database.begin())

    async def pause(self, failures: int) -> None:
        await self._database.pause(failures)

    async def everything_lands(self) -> None:
        """Waits for the commits that were sent late."""
        await asyncio.gather(*self._late)

    async def close(self) -> None:
        await self.everything_lands()
        await self._database.close()

    async def commit(self, attempt: Attempt, layer: Layer, marker: bytes, mark: bytes) -> int:
        """Commits, or ends unknown in one of three ways."""
        if self._dice.random() >= self._unknown:
            return await attempt.commit(layer, marker, mark)
        fate = self._dice.choice(("applied", "lost", "late"))
        if fate == "applied":
            await attempt.commit(layer, marker, mark)
        elif fate == "late":
            late = self._commit_late(attempt, layer, marker, mark)
            self._late.append(asyncio.create_task(late))
        raise CommitUnknown(f"on purpose: {fate}")

    async def _commit_late(
        self, attempt: Attempt, layer: Layer, marker: bytes, mark: bytes
    ) -> None:
        await asyncio.sleep(self._dice.uniform(0.0, 0.02))
        with contextlib.suppress(AttemptFailed, CommitUnknown):
            await attempt.commit(layer, marker, mark)


class _UnreliableAttempt:
    """One transaction."""

    def __init__(self, database: UnreliableDatabase, attempt: Attempt) -> None:
        self._database = database
        self._attempt = attempt

    async def marked(self, marker: bytes) -> tuple[bytes, int] | None:
        return await self._attempt.marked(marker)

    async def run(self, reads: Sequence[bytes], work: Callable[[Snapshot], T]) -> T:
        return await self._attempt.run(reads, work)

    async def read_version(self) -> int:
        return await self._attempt.read_version()

    async def commit(self, layer: Layer, marker: bytes, mark: bytes) -> int:
        return await self._database.commit(self._attempt, layer, marker, mark)
