"""Debits that travel together, when things go wrong."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tollmesh.client import (
    AsyncCreditClient,
    Batching,
    DeadlineExceeded,
    InsufficientCredit,
    Overloaded,
    Retries,
    TollmeshError,
)
from tollmesh.client.batches import Send, Waiting, frame, take, work_off
from tollmesh.client.retrying import Attempts, Budget
from tollmesh.credits.v1 import credits_pb2 as pb

from tests.client.conftest import ON_BOTH_FACES, Relay, Service
from tests.support.deadline import DEADLINE_S
from tests.support.service_process import running

CALLERS = 200


@dataclass
class Callers:
    """Many callers of one client, and what became of their debits by request id."""

    client: AsyncCreditClient
    chosen: random.Random
    entries: dict[str, str] = field(default_factory=dict)
    """Request id to entry."""
    unknown: set[str] = field(default_factory=set)
    refused: int = 0
    end: bool = False

    async def call(self, name: str) -> None:
        """Debits until the end: some of a poor account, some in a hurry, some cancelled."""
        number = 0
        while not self.end:
            number += 1
            request_id = f"{name}-{number}"
            kind = self.chosen.random()
            if kind < 0.1:
                with pytest.raises(InsufficientCredit):
                    await self.client.debit("poor", 1, request_id=request_id)
                self.refused += 1
            elif kind < 0.2:
                await self._in_a_hurry(request_id)
            elif kind < 0.3:
                await self._cancelled(request_id)
            else:
                await self.once(request_id)

    async def once(self, request_id: str) -> None:
        """A debit that must succeed."""
        answer = await self.client.debit("alice", 1, request_id=request_id)
        assert self.entries.setdefault(request_id, answer.entry_id) == answer.entry_id

    async def _in_a_hurry(self, request_id: str) -> None:
        try:
            answer = await self.client.debit("alice", 1, request_id=request_id, deadline_s=0.05)
        except DeadlineExceeded as late:
            self.unknown.add(late.request_id)
        else:
            self.entries[request_id] = answer.entry_id

    async def _cancelled(self, request_id: str) -> None:
        task = asyncio.create_task(self.client.debit("alice", 1, request_id=request_id))
        for _ in range(self.chosen.randrange(4)):
            await asyncio.sleep(0)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, pb.DebitResponse):
            self.entries[request_id] = outcome.entry_id
        else:
            assert isinstance(outcome, asyncio.CancelledError)
            self.unknown.add(request_id)

    async def reached(self, more: int) -> None:
        """Waits for so many more answers."""
        count = len(self.entries) + more
        async with asyncio.timeout(DEADLINE_S):
            while len(self.entries) < count:  # noqa: ASYNC110 (a condition with a deadline)
                await asyncio.sleep(0.01)


@ON_BOTH_FACES
async def test_every_one_of_two_hundred_callers_has_its_own_outcome_when_the_service_is_killed(
    relay: Relay, service: Service, seed: int
) -> None:
    async with AsyncCreditClient(relay.address, deadline_s=60) as client:
        await client.grant("alice", 1 << 40)
        callers = Callers(client, random.Random(seed))
        calling = asyncio.gather(*(callers.call(f"c{number}") for number in range(CALLERS)))
        await callers.reached(1000)
        relay.swallow = 2
        await callers.reached(1000)
        await service.process.stop(signal.SIGKILL)
        async with running("credits", service.settings, service.directory) as second:
            relay.target = second.address
            await callers.reached(1000)
            await second.stop(signal.SIGKILL)
            async with running("credits", service.settings, service.directory) as third:
                relay.target = third.address
                await callers.reached(1000)
                callers.end = True
                await calling
                # What was in doubt is found out by asking again, and was not done twice.
                await asyncio.gather(*map(callers.once, sorted(callers.unknown)))
                ledger = [
                    (entry.request_id, entry.entry_id)
                    async for entry in client.entries("alice", page_size=1000)
                    if entry.kind == pb.ENTRY_KIND_DEBIT
                ]
    assert callers.refused
    assert callers.unknown
    assert len(ledger) == len(callers.entries)
    assert dict(ledger) == callers.entries


async def test_a_service_that_is_full_is_asked_again_later_and_not_all_the_time(
    tmp_path: Path,
) -> None:
    settings = {
        "store": f"lmdb://{tmp_path}/store",
        "log_level": "info",
        "max_concurrent_calls": "2",
    }
    (tmp_path / "store").mkdir()
    async with running("credits", settings, tmp_path) as process:
        service = Service(tmp_path, process)
        async with AsyncCreditClient(process.address, deadline_s=60) as client:
            await client.grant("alice", 1000)
            async with client.debit_stream() as one, client.debit_stream() as other:
                for stream in (one, other):
                    await stream.send("alice", 1)
                    await anext(aiter(stream))
                begun_at = time.monotonic()
                waiting = [asyncio.create_task(client.debit("alice", 1)) for _ in range(CALLERS)]
                with pytest.raises(Overloaded):
                    await client.balance("alice", deadline_s=0.5)
                assert not any(task.done() for task in waiting)
            await asyncio.gather(*waiting)
            took_s = time.monotonic() - begun_at
            assert (await client.balance("alice")).balance.spent == CALLERS + 2
        await process.stop()
    # Each refusal asks for a second's rest (RetryInfo), and there are two calls under way.
    assert len(service.calls("BatchDebit")) <= 2 * (took_s + 2)


def _waiting(number: int) -> Waiting:
    request = pb.DebitRequest(request_id=f"r{number}", account_id="alice", amount=1)
    return Waiting(frame(request), time.monotonic() + 60, Future(), request.request_id)


def test_pauses_are_random_grow_and_never_end_before_the_service_said() -> None:
    retries = Retries(first_s=0.1, longest_s=0.8)
    longest = []
    for attempt in range(6):
        pauses = set()
        for _ in range(100):
            attempts = Attempts(retries, Budget(retries), time.monotonic() + 60)
            pause = 0.0
            for _ in range(attempt + 1):
                found = attempts.pause_s(Overloaded(retry_after_s=1.5))
                assert found is not None
                pause = found
            pauses.add(pause)
            assert 1.5 <= pause <= 1.5 + min(0.1 * 2**attempt, 0.8)
        assert len(pauses) > 90
        longest.append(max(pauses))
    assert longest[0] < longest[2] < longest[3]


def test_a_refused_batch_waits_and_goes_again_as_it_was_without_those_who_left() -> None:
    retries = Retries()
    batch = [_waiting(number) for number in range(3)]
    work = work_off(batch, retries, Budget(retries))
    first = next(work)
    assert isinstance(first, Send)
    pause_s = work.send(Overloaded(retry_after_s=2.0, reason="OVERLOADED"))
    assert isinstance(pause_s, float)
    assert pause_s >= 2
    promise = batch[1].promise
    assert isinstance(promise, Future)
    promise.cancel()
    again = next(work)
    assert isinstance(again, Send)
    sent = [one.request_id for one in pb.BatchDebitRequest.FromString(again.payload).debits]
    assert sent == ["r0", "r2"]


def test_when_no_retries_are_left_each_caller_hears_of_it_under_its_own_id() -> None:
    retries = Retries(budget=0)
    batch = [_waiting(number) for number in range(3)]
    work = work_off(batch, retries, Budget(retries))
    next(work)
    with pytest.raises(StopIteration):
        work.send(Overloaded(retry_after_s=0.0))
    failures = [one.promise.exception() for one in batch if isinstance(one.promise, Future)]
    assert [one.request_id for one in failures if isinstance(one, TollmeshError)] == [
        "r0",
        "r1",
        "r2",
    ]


def test_many_debits_are_shared_out_to_the_calls_under_way_and_few_are_not() -> None:
    limits = Batching(window=2, least_debits=50, max_debits=90)
    few = deque(_waiting(number) for number in range(40))
    assert len(take(few, 0, limits)) == 40
    many = deque(_waiting(number) for number in range(120))
    assert [len(take(many, under_way, limits)) for under_way in (0, 60)] == [60, 60]
    most = deque(_waiting(number) for number in range(1000))
    assert len(take(most, 0, limits)) == 90
