"""Debits that travel together, without I/O: what goes into a call and what its answer means.

A batch is worked off by a generator that says what to do next (``Send`` or a pause in seconds) and
is told what came of it; the async client and the threads of the sync one only do what it says.
Whatever happens to a call of the service, each debit gets its own outcome or exception, and is only
ever sent with the request id that it began with.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Sequence
from typing import NamedTuple, Protocol

from tollmesh.client import errors
from tollmesh.client.errors import DeadlineExceeded, TollmeshError
from tollmesh.client.options import Batching, Retries
from tollmesh.client.retrying import Attempts, Budget
from tollmesh.credits.v1 import credits_pb2 as pb

PATH = "/tollmesh.credits.v1.CreditService/BatchDebit"


class Promise(Protocol):
    """A future of asyncio or of threads."""

    def done(self) -> bool:
        """Whether it has an outcome, or nobody waits any more."""

    def set_result(self, result: pb.DebitResponse, /) -> None:
        """Hands the answer over."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Hands the failure over."""


class Waiting(NamedTuple):
    """A debit without an outcome."""

    frame: bytes
    """The debit as it stands in a BatchDebitRequest: field 1, length, message."""
    deadline: float
    promise: Promise
    request_id: str

    def fail(self, error: TollmeshError) -> None:
        """Raises ``error`` for the caller, unless it has gone."""
        if not self.promise.done():
            error.request_id = self.request_id
            self.promise.set_exception(error)


class Send(NamedTuple):
    """Call BatchDebit with these bytes."""

    payload: bytes
    timeout_s: float


Answer = pb.BatchDebitResponse | TollmeshError | None
Work = Generator[Send | float, Answer, None]


def frame(request: pb.DebitRequest) -> bytes:
    """A debit as an element of ``BatchDebitRequest.debits`` (field 1, wire type 2)."""
    encoded = request.SerializeToString()
    length = len(encoded)
    return (_HEADS[length] if length < len(_HEADS) else _head(length)) + encoded


def take(queue: deque[Waiting], under_way: int, limits: Batching) -> list[Waiting]:
    """Takes from the queue's left what goes into one call; skips debits whose callers are gone.

    Many are shared out to the calls that there may be at once, those that are under way included:
    so the service works on one part while this side takes in the answers to another.
    """
    share = -(-(len(queue) + under_way) // limits.window)
    most = min(max(share, limits.least_debits), limits.max_debits)
    batch: list[Waiting] = []
    size = 0
    while queue and len(batch) < most and size < limits.max_bytes:
        waiting = queue.popleft()
        if not waiting.promise.done():
            batch.append(waiting)
            size += len(waiting.frame)
    return batch


def work_off(batch: Sequence[Waiting], retries: Retries, budget: Budget) -> Work:
    """Sends a batch until each of its debits has an outcome or its deadline has passed."""
    attempts = Attempts(retries, budget, max(waiting.deadline for waiting in batch))
    while batch:
        answer = yield Send(b"".join([waiting.frame for waiting in batch]), attempts.timeout_s())
        if isinstance(answer, TollmeshError):
            error = answer
            if len(batch) > 1 and error.reason in {"INVALID_ARGUMENT", "INTERNAL"}:
                # One of them may be at fault: the halves are tried apart until it stands alone.
                middle = len(batch) // 2
                yield from work_off(batch[:middle], retries, budget)
                yield from work_off(batch[middle:], retries, budget)
                return
        else:
            assert answer is not None  # noqa: S101 (only pauses are answered with None)
            batch, last = _settle(batch, answer)
            if last is None:
                return
            error = last
        pause_s = attempts.pause_s(error)
        if pause_s is None:
            for waiting in batch:
                waiting.fail(_copied(error))
            return
        yield pause_s
        batch = _alive(batch)


def _head(length: int) -> bytes:
    """The tag of field 1, wire type 2, and a length (protobuf's encoding: a varint)."""
    head = bytearray(b"\n")
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)


_HEADS = [_head(length) for length in range(512)]


def _settle(
    batch: Sequence[Waiting], response: pb.BatchDebitResponse
) -> tuple[list[Waiting], TollmeshError | None]:
    """Hands the outcomes over; gives the debits that are to be tried again, and why."""
    outcomes = response.outcomes
    if len(outcomes) != len(batch):
        message = f"{len(outcomes)} outcomes for {len(batch)} debits"
        return list(batch), TollmeshError(message, reason="INTERNAL")
    again: list[Waiting] = []
    error = None
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if outcome.HasField("debit"):
            promise = waiting.promise
            if not promise.done():
                promise.set_result(outcome.debit)
            continue
        refused = errors.of_outcome(outcome.error)
        if refused.retryable:
            again.append(waiting)
            error = refused
        else:
            waiting.fail(refused)
    return again, error


def _alive(batch: Sequence[Waiting]) -> list[Waiting]:
    now = time.monotonic()
    alive = []
    for waiting in batch:
        if waiting.deadline <= now:
            waiting.fail(DeadlineExceeded())
        elif not waiting.promise.done():
            alive.append(waiting)
    return alive


def _copied(error: TollmeshError) -> TollmeshError:
    """One exception a caller: each gets a traceback and request id of its own."""
    return type(error)(
        error.message,
        code=error.code,
        reason=error.reason,
        metadata=error.metadata,
        retry_after_s=error.retry_after_s,
        violations=error.violations,
    )
