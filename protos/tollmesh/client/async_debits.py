"""Automatic batching for asyncio: many ``debit()`` calls, few calls of BatchDebit, no timer.

While ``window`` calls are under way, debits queue; when one returns, all that wait go at once. An
idle client sends in the same turn of the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

import grpc

from tollmesh.client import errors
from tollmesh.client.batches import Answer, Send, Waiting, frame, take, work_off
from tollmesh.client.errors import ClientClosed, DeadlineExceeded, QueueFull
from tollmesh.client.options import Batching, Retries
from tollmesh.client.retrying import Budget
from tollmesh.credits.v1 import credits_pb2 as pb

Sender = Callable[[bytes, float], Awaitable[pb.BatchDebitResponse]]
"""Calls BatchDebit with a payload and a timeout."""


class AsyncDebits:
    """The debits of one client; belongs to one event loop."""

    def __init__(self, send: Sender, limits: Batching, retries: Retries, budget: Budget) -> None:
        self._send = send
        self._limits = limits
        self._retries = retries
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Waiting] = deque()
        self._under_way: dict[asyncio.Task[None], list[Waiting]] = {}
        self._pumping = False
        self._closed = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = float("inf")

    def debit(self, request: pb.DebitRequest, deadline: float) -> asyncio.Future[pb.DebitResponse]:
        """The debit's own answer, to come, or its own error. Raises ClientClosed, QueueFull."""
        if self._closed:
            raise ClientClosed
        if len(self._queue) >= self._limits.max_waiting:
            raise QueueFull
        future: asyncio.Future[pb.DebitResponse] = self._loop.create_future()
        self._queue.append(Waiting(frame(request), deadline, future, request.request_id))
        if deadline < self._alarm_at:
            self._set_alarm(deadline)
        if not self._pumping and len(self._under_way) < self._limits.window:
            # In the next turn, so that all who call in this one travel together.
            self._pumping = True
            self._loop.call_soon(self._pump)
        return future

    async def close(self, grace_s: float) -> None:
        """Lets debits under way finish for so long; those that remain raise ClientClosed."""
        self._closed = True
        deadline = time.monotonic() + grace_s
        while (self._queue or self._under_way) and (left := deadline - time.monotonic()) > 0:
            self._pump()
            if self._under_way:
                await asyncio.wait([*self._under_way], timeout=left)
        for task in self._under_way:
            task.cancel()
        for waiting in self._waiting():
            waiting.fail(ClientClosed())
        self._queue.clear()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._alarm is not None:
            self._alarm.cancel()

    def _pump(self) -> None:
        self._pumping = False
        under_way = sum(map(len, self._under_way.values()))
        while self._queue and len(self._under_way) < self._limits.window:
            batch = take(self._queue, under_way, self._limits)
            if batch:
                under_way += len(batch)
                task = self._loop.create_task(self._work(batch))
                self._under_way[task] = batch
                task.add_done_callback(self._returned)

    def _returned(self, task: asyncio.Task[None]) -> None:
        batch = self._under_way.pop(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            for waiting in batch:
                waiting.fail(errors.TollmeshError(f"a fault of the client: {fault!r}"))
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    async def _work(self, batch: list[Waiting]) -> None:
        work = work_off(batch, self._retries, self._budget)
        answer: Answer = None
        try:
            while True:
                step = work.send(answer)
                answer = None
                if isinstance(step, Send):
                    try:
                        answer = await self._send(step.payload, step.timeout_s)
                    except grpc.RpcError as error:
                        answer = errors.of_rpc(error)
                else:
                    await asyncio.sleep(step)
        except StopIteration:
            return

    def _waiting(self) -> list[Waiting]:
        return [*self._queue, *(one for batch in self._under_way.values() for one in batch)]

    def _set_alarm(self, deadline: float) -> None:
        """One timer for all: it is set when none is earlier, and looks at everything once."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = deadline
        self._alarm = self._loop.call_later(max(deadline - time.monotonic(), 0), self._ring)

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, float("inf")
        now, earliest = time.monotonic(), float("inf")
        for waiting in self._waiting():
            if waiting.promise.done():
                continue
            if waiting.deadline <= now:
                waiting.fail(DeadlineExceeded())
            else:
                earliest = min(earliest, waiting.deadline)
        if earliest < float("inf"):
            self._set_alarm(earliest)
