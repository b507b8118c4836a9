"""Group commit: a store over an engine.

While an engine transaction of a lane is in flight, the operations that arrive for the lane queue
up; the next engine transaction runs them all, in order. There is no timer: an idle store commits at
once, a busy one batches by itself, and while the event loop brings operations one by one the next
engine transaction waits for a number of them that is worth its cost.
"""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from services.store.engine import Engine
from services.store.errors import (
    StoreClosedError,
    StoreError,
    StoreOverloadedError,
    StoreUnavailableError,
    VersionUnknownError,
)
from services.store.layer import Deferred, Layer, Snapshot
from services.store.overlay import Overlay
from services.store.port import MAX_APPENDS, Committed, Operation, ReadTransaction

T = TypeVar("T")

MAX_BATCH_BYTES = 800_000
"""What one engine transaction writes at most, unless a single operation writes more."""


_WORTHWHILE = 16
"""The operations of so many callers are committed as soon as the lane is free."""
_PLENTY = 64
"""Fewer are waited for up to this many: the share of each in the cost of a commit hardly falls."""
_FRUITLESS_TURNS = 4
"""After so many turns that brought no operation the event loop has none on its way.

More than one, because a call takes a few turns from the socket to the store.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a store takes on."""

    waiting_operations: int = 10_000
    """Operations waiting for their commit; beyond it ``StoreOverloadedError``."""
    batch_operations: int = 500
    """Operations in one engine transaction."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """An operation that its caller waits for."""

    operation: Operation[Any]
    answer: asyncio.Future[Committed[Any]]
    seal: Callable[[], None] | None


@dataclass(slots=True, eq=False)
class _Lane:
    """A queue with at most one engine transaction in flight."""

    number: int
    queue: deque[_Waiting] = field(default_factory=deque)
    driver: asyncio.Task[None] | None = None

    def callers(self) -> int:
        """How many wait."""
        if len(self.queue) >= _PLENTY:
            return len(self.queue)
        weights = [waiting.operation.weight for waiting in self.queue]
        return sum([1 if weight is None else weight() for weight in weights])


_Outcome = tuple[Any, Exception | None]


class GroupCommit:
    """The one implementation of ``services.store.port.Store``; made in the loop that uses it."""

    def __init__(self, engine: Engine, limits: Limits | None = None) -> None:
        self._loop = asyncio.get_running_loop()  # costs a system call each time on Python 3.11
        self._engine = engine
        self._limits = limits or Limits()
        self._lanes = [_Lane(number) for number in range(engine.lanes)]
        self._ungrouped = itertools.cycle(self._lanes)
        self._waiting = 0
        self._closing: asyncio.Task[None] | None = None
        self._reads = 0
        self._idle = asyncio.Event()

    async def commit(self, operation: Operation[T]) -> Committed[T]:
        """As the port says."""
        if self._closing is not None:
            raise StoreClosedError("the store was closed")
        if self._waiting >= self._limits.waiting_operations:
            raise StoreOverloadedError(f"{self._waiting} operations are waiting")
        lane = self._lane_of(operation.group)
        answer: asyncio.Future[Committed[T]] = self._loop.create_future()
        lane.queue.append(_Waiting(operation, answer, operation.seal))
        self._waiting += 1
        if lane.driver is None:
            lane.driver = self._loop.create_task(self._drive(lane))
        return await answer

    async def read(
        self, run: Callable[[ReadTransaction], T], *, at_least_version: int = 0
    ) -> Committed[T]:
        """As the port says."""
        if self._closing is not None:
            raise StoreClosedError("the store was closed")
        self._reads += 1
        try:
            result, version = await self._engine.read(lambda snapshot: run(Overlay(snapshot)))
        finally:
            self._reads -= 1
            if not self._reads:
                self._idle.set()
        if version < at_least_version:
            raise VersionUnknownError(f"the latest version is {version}, not {at_least_version}")
        return Committed(result, version)

    async def close(self) -> None:
        """As the port says. Closing twice is fine."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for lane in self._lanes:
            if lane.driver is not None:
                await lane.driver
        while self._reads:
            self._idle.clear()
            await self._idle.wait()
        await self._engine.close()

    def _lane_of(self, group: str) -> _Lane:
        if not group:
            return next(self._ungrouped)
        return self._lanes[zlib.crc32(group.encode()) % len(self._lanes)]

    async def _drive(self, lane: _Lane) -> None:
        """Commits what waits in a lane until nothing does."""
        try:
            while lane.queue:
                await self._gather(lane)
                await self._engine.ready(lane.number)
                await self._commit_next(lane)
        finally:
            lane.driver = None

    async def _gather(self, lane: _Lane) -> None:
        """Lets a small batch grow while the event loop is busy bringing more.

        A commit costs as much as several calls, so a busy process that committed every two or three
        operations would mostly commit. An idle one only turns its loop a few times.
        """
        size = lane.callers()
        if size >= _WORTHWHILE:
            return
        fruitless = 0
        while fruitless < _FRUITLESS_TURNS and size < _PLENTY:
            await asyncio.sleep(0)
            before, size = size, lane.callers()
            fruitless = 0 if size > before else fruitless + 1

    async def _commit_next(self, lane: _Lane) -> None:
        batch = list(itertools.islice(lane.queue, self._limits.batch_operations))
        for waiting in batch:
            if waiting.seal is not None:
                waiting.seal()
                waiting.seal = None
        reads = [key for waiting in batch for key in waiting.operation.reads]
        try:
            outcomes, version = await self._engine.transact(
                lane.number, reads, lambda snapshot: _run(batch, snapshot)
            )
        except StoreError as error:
            outcomes, version = [(None, error)] * len(batch), 0
        except Exception as error:  # noqa: BLE001 (a fault of the engine must not hang its callers)
            unavailable = StoreUnavailableError(f"the engine failed: {error!r}")
            unavailable.__cause__ = error
            outcomes, version = [(None, unavailable)] * len(batch), 0
        self._waiting -= len(outcomes)
        for result, failure in outcomes:
            answer = lane.queue.popleft().answer
            if answer.done():  # its caller was cancelled
                continue
            if failure is None:
                answer.set_result(Committed(result, version))
            else:
                answer.set_exception(failure)


def _run(batch: list[_Waiting], snapshot: Snapshot) -> tuple[Layer, list[_Outcome]]:
    """Runs operations in order; stops before one that must wait for the next engine transaction."""
    layer = Layer(snapshot)
    outcomes: list[_Outcome] = []
    size_bytes = 0
    for waiting in batch:
        overlay = Overlay(layer)
        try:
            result = waiting.operation.run(overlay)
            size_bytes += overlay.size_bytes
            appends = len(layer.appends) + len(overlay.appends)
            if outcomes and (size_bytes > MAX_BATCH_BYTES or appends > MAX_APPENDS):
                break
            layer.absorb(overlay)
        except Deferred:
            break
        except Exception as error:  # noqa: BLE001 (whatever it is, it belongs to the caller)
            outcomes.append((None, error))
        else:
            outcomes.append((result, None))
    return layer, outcomes
