from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import pytest
from tollmesh.client import (
    AsyncCreditClient,
    Batching,
    ClientClosed,
    DeadlineExceeded,
    HoldNotFound,
    InsufficientCredit,
    InvalidArgument,
    Metered,
    QueueFull,
    RequestIdReused,
    TollmeshError,
    unasync,
)
from tollmesh.credits.v1 import credits_pb2 as pb

from tests.client.conftest import Relay, Service
from tests.support.deadline import DEADLINE_S
from tests.support.service_process import running


async def _spent(client: AsyncCreditClient, account: str) -> int:
    return (await client.balance(account)).balance.spent


async def _reached(answered: list[pb.DebitResponse], count: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while len(answered) < count:  # noqa: ASYNC110 (a condition with a deadline)
            await asyncio.sleep(0.01)


async def test_concurrent_debits_travel_as_few_calls(service: Service) -> None:
    async with AsyncCreditClient(service.process.address) as client:
        await client.grant("alice", 10_000)
        answers = await asyncio.gather(*(client.debit("alice", 1) for _ in range(500)))
        assert await _spent(client, "alice") == 500
    await service.process.stop()
    calls = service.calls("BatchDebit")
    assert sum(int(str(call["debits"])) for call in calls) == 500
    assert len(calls) <= 5
    assert len({answer.entry_id for answer in answers}) == 500


async def test_each_debit_has_its_own_outcome(service: Service) -> None:
    async with AsyncCreditClient(service.process.address) as client:
        await client.grant("rich", 10)
        done = await asyncio.gather(
            client.debit("rich", 3),
            client.debit("poor", 1),
            client.debit("not an account", 1),
            client.debit("rich", metered=Metered(meter="nothing", quantity=1)),
            client.debit("rich", 2),
            return_exceptions=True,
        )
    assert [type(one).__name__ for one in done] == [
        "DebitResponse",
        "InsufficientCredit",
        "InvalidArgument",
        "MeterUnknown",
        "DebitResponse",
    ]
    poor = done[1]
    assert isinstance(poor, InsufficientCredit)
    assert poor.metadata["needed"] == "1"
    assert poor.reason == "INSUFFICIENT_CREDIT"
    assert poor.request_id
    assert isinstance(done[2], InvalidArgument)
    assert done[2].violations


async def test_debits_of_an_account_that_queue_together_keep_their_order(service: Service) -> None:
    async with AsyncCreditClient(service.process.address) as client:
        await client.grant("alice", 1000)
        calls = [client.debit("alice", number) for number in range(1, 41)]
        await asyncio.gather(*calls)
        amounts = [
            entry.amount
            async for entry in client.entries("alice", page_size=7)
            if entry.kind == pb.ENTRY_KIND_DEBIT
        ]
    assert amounts == list(range(1, 41))


async def test_a_lost_answer_is_had_again_and_each_debit_is_applied_once(relay: Relay) -> None:
    async with AsyncCreditClient(relay.address) as client:
        await client.grant("alice", 10_000)
        for _ in range(5):
            relay.swallow = 1
            answers = await asyncio.gather(*(client.debit("alice", 1) for _ in range(50)))
            assert len({answer.entry_id for answer in answers}) == 50
        assert relay.swallowed == 5
        assert await _spent(client, "alice") == 250


async def test_a_killed_service_loses_and_doubles_nothing(relay: Relay, service: Service) -> None:
    answered: list[pb.DebitResponse] = []
    end = asyncio.Event()

    async def caller(client: AsyncCreditClient) -> None:
        while not end.is_set():
            answered.append(await client.debit("alice", 1))

    async with AsyncCreditClient(relay.address, deadline_s=60) as client:
        await client.grant("alice", 1 << 40)
        callers = asyncio.gather(*(caller(client) for _ in range(20)))
        await _reached(answered, 200)
        await service.process.stop(signal.SIGKILL)
        async with running("credits", service.settings, service.directory) as again:
            relay.target = again.address
            await _reached(answered, len(answered) + 200)
            end.set()
            await callers
            entries = [e async for e in client.entries("alice") if e.kind == pb.ENTRY_KIND_DEBIT]
    assert sorted(e.entry_id for e in entries) == sorted(a.entry_id for a in answered)


async def test_a_cancelled_caller_hurts_nobody(service: Service) -> None:
    async with AsyncCreditClient(service.process.address, batching=Batching(window=1)) as client:
        await client.grant("alice", 1000)
        tasks = [asyncio.create_task(client.debit("alice", 1)) for _ in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, pb.DebitResponse) for one in done[1::2])
    assert all(isinstance(one, asyncio.CancelledError) for one in done[::2])


async def test_a_deadline_is_kept_and_says_under_which_id_to_repeat() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        async with AsyncCreditClient(address, close_grace_s=0) as client:
            patient = asyncio.create_task(client.debit("alice", 1, deadline_s=30))
            with pytest.raises(DeadlineExceeded) as late:
                await client.debit("alice", 1, request_id="mine", deadline_s=0.2)
            assert late.value.request_id == "mine"
            assert not patient.done()
            with pytest.raises(TollmeshError):
                await client.balance("alice", deadline_s=0.2)
        with pytest.raises(ClientClosed):
            await patient


async def test_a_full_queue_is_a_clear_error(service: Service) -> None:
    batching = Batching(max_waiting=10)
    async with AsyncCreditClient(service.process.address, batching=batching) as client:
        await client.grant("alice", 100)
        calls = (client.debit("alice", 1) for _ in range(20))
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(one, QueueFull) for one in done) == 10
        assert await _spent(client, "alice") == 10


async def test_closing_lets_debits_under_way_finish(service: Service) -> None:
    client = AsyncCreditClient(service.process.address)
    await client.grant("alice", 1000)
    tasks = [asyncio.create_task(client.debit("alice", 1)) for _ in range(300)]
    await asyncio.sleep(0)
    await client.close()
    assert len({task.result().entry_id for task in tasks}) == 300
    with pytest.raises(ClientClosed):
        await client.debit("alice", 1)
    with pytest.raises(ClientClosed):
        await client.balance("alice")


async def test_the_other_calls_do_what_they_say(service: Service) -> None:
    async with AsyncCreditClient(service.process.address) as client:
        first = await client.grant("alice", 100, request_id="g")
        assert (await client.grant("alice", 100, request_id="g")).replayed
        with pytest.raises(RequestIdReused):
            await client.grant("alice", 101, request_id="g")
        held = (await client.reserve("alice", 10, time_to_live_s=60)).hold
        assert [hold.hold_id async for hold in client.list_holds("alice")] == [held.hold_id]
        await client.extend_hold("alice", held.hold_id, time_to_live_s=90, amount=5)
        captured = await client.capture("alice", held.hold_id, 4)
        assert (await client.release("alice", held.hold_id)).amount == 11
        assert (await client.get_hold("alice", held.hold_id)).hold.captured == 4
        assert (await client.refund("alice", captured.entry_id)).amount == 4
        batch = [pb.DebitRequest(account_id="alice", amount=n) for n in (1, 1000)]
        outcomes = await client.debit_batch(batch, all_or_nothing=True)
        assert all(isinstance(one, TollmeshError) for one in outcomes)
        with pytest.raises(HoldNotFound):
            await client.get_hold("alice", "nothing")
        assert (await client.void_grant("alice", first.grant_id)).amount == 100
        assert (await client.usage("alice")) == []


def test_the_sync_client_is_what_the_async_one_gives() -> None:
    for name, made in unasync.FILES.items():
        source = (Path(unasync.HERE) / name).read_text()
        assert unasync.converted(source) == (Path(unasync.HERE) / made).read_text()
