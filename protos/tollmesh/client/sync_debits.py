"""Automatic batching for threads: the same as ``async_debits``, with a few threads that send."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

import grpc

from tollmesh.client import errors
from tollmesh.client.batches import Answer, Send, Waiting, frame, take, work_off
from tollmesh.client.errors import ClientClosed, DeadlineExceeded, QueueFull
from tollmesh.client.options import Batching, Retries
from tollmesh.client.retrying import Budget
from tollmesh.credits.v1 import credits_pb2 as pb

Sender = Callable[[bytes, float], pb.BatchDebitResponse]
"""Calls BatchDebit with a payload and a timeout."""


class SyncDebits:
    """The debits of one client, from any thread. Its threads start with the first debit."""

    def __init__(self, send: Sender, limits: Batching, retries: Retries, budget: Budget) -> None:
        self._send = send
        self._limits = limits
        self._retries = retries
        self._budget = budget
        self._queue: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._under_way: set[Waiting] = set()
        self._closed = False
        self._stop = threading.Event()

    def debit(self, request: pb.DebitRequest, deadline: float) -> pb.DebitResponse:
        """The debit's own answer. Raises its own error, DeadlineExceeded, QueueFull."""
        promise = _Promise()
        waiting = Waiting(frame(request), deadline, promise, request.request_id)
        with self._changed:
            if self._closed:
                raise ClientClosed
            if len(self._queue) >= self._limits.max_waiting:
                raise QueueFull
            self._queue.append(waiting)
            if len(self._threads) < self._limits.window:
                self._start()
            self._changed.notify()
        try:
            return promise.result(max(deadline - time.monotonic(), 0))
        except TimeoutError:
            promise.cancel()
            late = DeadlineExceeded()
            late.request_id = request.request_id
            raise late from None

    def close(self, grace_s: float) -> None:
        """Lets debits under way finish for so long; those that remain raise ClientClosed."""
        deadline = time.monotonic() + grace_s
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not (self._queue or self._under_way), grace_s)
            left = [*self._queue, *self._under_way]
            self._queue.clear()
        self._stop.set()
        for waiting in left:
            waiting.fail(ClientClosed())
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def _start(self) -> None:
        name = f"tollmesh-debits-{len(self._threads)}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                batch = take(self._queue, len(self._under_way), self._limits)
                self._under_way.update(batch)
            try:
                if batch:
                    self._work(batch)
            except Exception as fault:  # noqa: BLE001 (callers wait: they must hear of any fault)
                for waiting in batch:
                    waiting.fail(errors.TollmeshError(f"a fault of the client: {fault!r}"))
            finally:
                with self._changed:
                    self._under_way.difference_update(batch)
                    if self._closed:
                        self._changed.notify_all()

    def _work(self, batch: list[Waiting]) -> None:
        work = work_off(batch, self._retries, self._budget)
        answer: Answer = None
        while not self._stop.is_set():
            try:
                step = work.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(step, Send):
                try:
                    answer = self._send(step.payload, step.timeout_s)
                except grpc.RpcError as error:
                    answer = errors.of_rpc(error)
            else:
                self._stop.wait(step)


class _Promise(Future[pb.DebitResponse]):
    """Keeps its first outcome; the caller may have gone at the same moment."""

    def set_result(self, result: pb.DebitResponse) -> None:
        with suppress(InvalidStateError):
            super().set_result(result)

    def set_exception(self, exception: BaseException | None) -> None:
        with suppress(InvalidStateError):
            super().set_exception(exception)
