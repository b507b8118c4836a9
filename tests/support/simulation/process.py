"""A credit service on a simulated cluster that can be killed at any moment, with its own clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import STORE_ERRORS
from services.credits.records import FAMILY
from services.rpc.errors import DependencyUnavailableError
from services.store.engines.simulated import SimulatedCluster
from services.store.errors import StoreError
from services.store.group_commit import GroupCommit
from services.store.requests import sweep_for_ever
from services.store.retention import Retention
from tests.support.credit_service import START_S, CreditService
from tests.support.history import Message
from tests.support.simulation.loop import OWNER

T = TypeVar("T")

TICK_S = 0.02
"""How fine a clock is: so that few times come into question for a call."""
BUDGET_S = 0.4
"""For how long an engine tries before it gives an operation up."""
SWEEP_S = 0.5


class ProcessClock:
    """The clock of one process: it may be moved, and remembers what it told."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self.ahead_us = 0
        self._told: list[int] = []

    @property
    def now_us(self) -> int:
        """What it says now."""
        ticks = int(self._time() / TICK_S)
        return START_S * 1_000_000 + ticks * round(TICK_S * 1_000_000) + self.ahead_us

    def __call__(self) -> int:
        now_us = self.now_us
        if not self._told or self._told[-1] != now_us:
            self._told.append(now_us)
        return now_us

    @property
    def moment(self) -> int:
        """For ``told_since``."""
        return max(0, len(self._told) - 1)

    def told_since(self, moment: int) -> tuple[int, ...]:
        """All times that it told since then, the one at that moment included."""
        return tuple(dict.fromkeys(self._told[moment:]))


class Process:
    """One credit service; what it has in memory is gone when it is killed."""

    def __init__(self, cluster: SimulatedCluster, number: int) -> None:
        self.number = number
        self._loop = asyncio.get_running_loop()
        self.clock = ProcessClock(self._loop.time)
        self._cluster = cluster
        self._tasks: set[asyncio.Task[Any]] = set()
        self._context = Context()
        self._client = b""
        self._service: CreditService | None = None
        self.start()

    @property
    def is_up(self) -> bool:
        return self._service is not None

    @property
    def service(self) -> CreditService:
        assert self._service is not None, "the process is down"
        return self._service

    def start(self) -> None:
        """Opens the store anew, under another name, and sweeps."""
        self._tasks = set()
        self._context = copy_context()
        self._context.run(OWNER.set, self._tasks)
        self._client = self._cluster.random.randbytes(16)
        self._loop.create_task(self._live(), context=self._context)

    def kill(self) -> None:
        """What it is doing is never finished; calls end without an answer."""
        self._service = None
        self._cluster.kill(self._client)
        self._bury(self._tasks)

    def _bury(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Cancels what is left of a killed process, and whatever that starts as it ends."""
        for task in list(tasks):
            task.cancel()
        if tasks:
            self._loop.call_later(0.001, self._bury, tasks)

    async def call(self, method: str, request: Message) -> Message:
        """Calls a servicer; errors are those of the contract."""
        if self._service is None:
            raise DependencyUnavailableError("the process is down")
        handler: Any = getattr(self._service.direct, method)
        if method == "StreamDebits":
            return await self.do(_streamed(handler, request))
        return await self.do(_answered(handler, request))

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits work that the process does; it is over, as unknown, when that is killed."""
        task = self._loop.create_task(work, context=self._context.copy())
        await asyncio.wait((task,))
        if task.cancelled():
            raise DependencyUnavailableError("the process was killed")
        error = task.exception()
        if error is None:
            return task.result()
        for known, told in STORE_ERRORS.items():
            if isinstance(error, known):
                raise told(str(error)) from error
        raise error

    async def _live(self) -> None:
        """As ``services.credits`` does, but quietly: serves, and sweeps what is old."""
        engine = self._cluster.engine(client=self._client, budget_s=BUDGET_S)
        store = GroupCommit(engine)
        retention = await self._retention(store)
        service = self._service = CreditService(store, self.clock, retention)
        forgetting = sweep_for_ever(
            store, service.requests, every_s=SWEEP_S, now_us=self.clock, failed=lambda _: None
        )
        self._loop.create_task(forgetting)
        while True:
            with contextlib.suppress(StoreError):
                await service.sweeper.sweep()
            await asyncio.sleep(SWEEP_S)

    async def _retention(self, store: GroupCommit) -> Retention:
        """The clock of old records: by a monotonic clock that begins anywhere."""
        begin_s = self._cluster.random.random() * 1e6 - self._loop.time()
        while True:
            with contextlib.suppress(StoreError):
                return await Retention.open(
                    store,
                    FAMILY,
                    wall_us=self.clock,
                    monotonic=lambda: begin_s + self._loop.time(),
                )


async def _streamed(handler: Message, request: pb.StreamDebitsRequest) -> pb.StreamDebitsResponse:
    """A stream of one message: all outcomes."""

    async def messages() -> AsyncIterator[pb.StreamDebitsRequest]:
        yield request

    told = pb.StreamDebitsResponse()
    async for part in handler(messages()):
        told.outcomes.extend(part.outcomes)
    return told


async def _answered(handler: Callable[[Message], Awaitable[Message]], request: Message) -> Message:
    """Calls a handler, in the process: it may do some of its work before it is awaited."""
    return await handler(request)
