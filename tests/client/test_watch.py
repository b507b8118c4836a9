from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator

import pytest
from tollmesh.client import AsyncCreditClient, ClientClosed, CreditClient, DeadlineExceeded
from tollmesh.client.watches import Watched
from tollmesh.credits.v1 import credits_pb2 as pb

from tests.client.conftest import ON_BOTH_FACES, Relay, Service
from tests.support.deadline import DEADLINE_S
from tests.support.service_process import running

Told = tuple[int, list[tuple[int, bool]]]
"""What was available, and the thresholds that were crossed, below or not."""


async def _next(watch: AsyncIterator[pb.WatchBalanceResponse]) -> Told:
    async with asyncio.timeout(DEADLINE_S):
        answer = await anext(watch)
    return answer.balance.available, [(one.threshold, one.below) for one in answer.events]


@ON_BOTH_FACES
async def test_a_watch_outlives_its_connections_and_tells_each_crossing_once(
    relay: Relay, service: Service
) -> None:
    async with (
        AsyncCreditClient(relay.address) as client,
        AsyncCreditClient(service.process.address) as other,
    ):
        await other.grant("alice", 100)
        watch = client.watch_balance("alice", thresholds=[50, 80])
        assert await _next(watch) == (100, [])
        await other.debit("alice", 40)
        assert await _next(watch) == (60, [(80, True)])
        relay.cut()
        await other.debit("alice", 20)
        assert await _next(watch) == (40, [(50, True)])
        for _ in range(3):
            relay.cut()
        await other.grant("alice", 60)
        assert await _next(watch) == (100, [(50, False), (80, False)])


async def test_a_watch_outlives_the_service(relay: Relay, service: Service) -> None:
    async with AsyncCreditClient(relay.address, deadline_s=60) as client:
        await client.grant("alice", 100)
        watch = client.watch_balance("alice", thresholds=[50], thresholds_only=True)
        assert await _next(watch) == (100, [])
        await client.debit("alice", 60)
        assert await _next(watch) == (40, [(50, True)])
        coming = asyncio.create_task(_next(watch))
        await service.process.stop(signal.SIGKILL)
        async with running("credits", service.settings, service.directory) as again:
            relay.target = again.address
            await client.debit("alice", 5)
            await client.grant("alice", 65)
            assert await coming == (100, [(50, False)])


async def test_a_watch_ends_with_its_deadline_and_with_its_client(service: Service) -> None:
    client = AsyncCreditClient(service.process.address)
    with pytest.raises(DeadlineExceeded):
        async for _ in client.watch_balance("alice", deadline_s=0.3):
            pass
    watch = client.watch_balance("alice")
    await anext(watch)
    coming = asyncio.create_task(_next(watch))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(ClientClosed):
        await coming


async def test_a_watch_gives_up_when_the_service_is_gone(unused_address: str) -> None:
    async with AsyncCreditClient(unused_address, deadline_s=0.3) as client:
        with pytest.raises(Exception, match=r"(?i)connect") as failure:
            await anext(client.watch_balance("alice"))
        assert type(failure.value).__name__ == "TollmeshError"


def _watch_in_a_thread(address: str) -> list[int]:
    seen = []
    with CreditClient(address) as client:
        client.grant("alice", 3)
        for answer in client.watch_balance("alice"):
            seen.append(answer.balance.available)
            if not answer.balance.available:
                return seen
            client.debit("alice", 1)
    raise AssertionError("the watch ended by itself")


async def test_threads_watch_too(service: Service) -> None:
    assert await asyncio.to_thread(_watch_in_a_thread, service.process.address) == [3, 2, 1, 0]


def test_what_is_told_over_several_calls_is_what_one_call_would_tell(seed: int) -> None:
    chosen = random.Random(seed)
    for _ in range(300):
        marks = chosen.sample(range(1, 9), chosen.randrange(4))
        only = chosen.random() < 0.5
        watched = Watched(pb.WatchBalanceRequest(thresholds=marks, thresholds_only=only))
        told: int | None = None
        below: set[int] = set()
        for version in range(1, 40):
            available = chosen.randrange(10)
            news = watched.news(_message(available, version, marks))
            crossed = below ^ {mark for mark in marks if available < mark}
            if told is None or crossed or (available != told and not only):
                told, below = available, below ^ crossed
                assert news is not None
                assert news.balance.available == available
                assert [(one.threshold, one.below) for one in news.events] == [
                    (mark, mark in below) for mark in sorted(crossed)
                ]
            else:
                assert news is None
            assert watched.request.at_least_version == str(version)


def _message(available: int, version: int, marks: list[int]) -> pb.WatchBalanceResponse:
    """The first message of a call."""
    answer = pb.WatchBalanceResponse(version=str(version))
    answer.balance.available = available
    for mark in sorted(marks):
        if available < mark:
            answer.events.add(threshold=mark, below=True)
    return answer
