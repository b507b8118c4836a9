from __future__ import annotations

import asyncio
import signal

import pytest
from tollmesh.client import (
    AsyncCreditClient,
    AsyncDebitStream,
    ClientClosed,
    InsufficientCredit,
    InvalidArgument,
    StreamedDebit,
    TollmeshError,
)
from tollmesh.credits.v1 import credits_pb2 as pb

from tests.client.conftest import ON_BOTH_FACES, Relay, Service
from tests.support.deadline import DEADLINE_S
from tests.support.service_process import running


async def _send_all(stream: AsyncDebitStream, count: int) -> list[str]:
    ids = [await stream.send("alice", 1) for _ in range(count)]
    stream.end()
    return ids


async def _debits(client: AsyncCreditClient) -> list[str]:
    """The request ids of the ledger's debits, in its order."""
    return [
        entry.request_id
        async for entry in client.entries("alice", page_size=1000)
        if entry.kind == pb.ENTRY_KIND_DEBIT
    ]


@ON_BOTH_FACES
async def test_a_stream_applies_and_tells_in_the_order_of_its_debits(service: Service) -> None:
    async with AsyncCreditClient(service.process.address) as client:
        await client.grant("alice", 10_000)
        async with client.debit_stream() as stream:
            sending = asyncio.create_task(_send_all(stream, 5000))
            told = [outcome.request_id async for outcome in stream]
            assert told == await sending
            with pytest.raises(RuntimeError, match="ended"):
                await stream.send("alice", 1)
        assert await _debits(client) == told


async def test_who_takes_no_outcome_cannot_send_without_end(service: Service) -> None:
    async with AsyncCreditClient(service.process.address) as client:
        await client.grant("alice", 1000)
        async with client.debit_stream(window=10) as stream:
            sending = asyncio.create_task(_send_all(stream, 50))
            async with asyncio.timeout(DEADLINE_S):
                while (await client.balance("alice")).balance.spent < 10:
                    pass
            assert not sending.done()
            assert (await client.balance("alice")).balance.spent == 10
            assert len([outcome async for outcome in stream]) == 50


@ON_BOTH_FACES
async def test_a_refused_or_invalid_debit_of_a_stream_hurts_no_other(service: Service) -> None:
    async with AsyncCreditClient(service.process.address) as client:
        await client.grant("alice", 10)
        async with client.debit_stream() as stream:
            for account in ("alice", "poor", "not an account", "alice", "nor this", "alice"):
                await stream.send(account, 1)
            stream.end()
            outcomes = [outcome async for outcome in stream]
        assert [type(one.error) for one in outcomes] == [
            type(None),
            InsufficientCredit,
            InvalidArgument,
            type(None),
            InvalidArgument,
            type(None),
        ]
        assert outcomes[0].result().balance.spent == 1
        with pytest.raises(InvalidArgument) as invalid:
            outcomes[4].result()
        assert invalid.value.request_id == outcomes[4].request_id
        assert (await client.balance("alice")).balance.spent == 3


@ON_BOTH_FACES
async def test_a_stream_outlives_its_connections_and_the_service(
    relay: Relay, service: Service
) -> None:
    told: list[StreamedDebit] = []

    async def reached(count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while len(told) < count:  # noqa: ASYNC110 (a condition with a deadline)
                await asyncio.sleep(0.005)

    async def take(stream: AsyncDebitStream) -> None:
        async for outcome in stream:
            told.append(outcome)
            if len(told) % 50 == 0:
                await asyncio.sleep(0.001)

    async with (
        AsyncCreditClient(relay.address, deadline_s=60) as client,
        client.debit_stream(window=500) as stream,
    ):
        await client.grant("alice", 1 << 40)
        sending = asyncio.create_task(_send_all(stream, 20_000))
        taking = asyncio.create_task(take(stream))
        for _ in range(3):
            await reached(len(told) + 500)
            relay.cut()
        await reached(len(told) + 500)
        await service.process.stop(signal.SIGKILL)
        async with running("credits", service.settings, service.directory) as again:
            relay.target = again.address
            await taking
            sent = await sending
            assert [outcome.request_id for outcome in told] == sent
            assert all(outcome.error is None for outcome in told)
            assert await _debits(client) == sent


async def test_a_stream_that_gives_up_says_what_has_no_outcome(unused_address: str) -> None:
    async with (
        AsyncCreditClient(unused_address) as client,
        client.debit_stream(deadline_s=0.3) as stream,
    ):
        sent = [await stream.send("alice", 1) for _ in range(3)]
        with pytest.raises(TollmeshError) as failure:
            await anext(aiter(stream))
        assert failure.value.retryable
        assert [request.request_id for request in stream.unanswered] == sent
        with pytest.raises(TollmeshError):
            await stream.send("alice", 1)


async def test_a_stream_ends_with_its_client(service: Service) -> None:
    client = AsyncCreditClient(service.process.address)
    await client.grant("alice", 10)
    async with client.debit_stream() as stream:
        await stream.send("alice", 1)
        outcomes = aiter(stream)
        assert (await anext(outcomes)).error is None
        await client.close()
        await stream.send("alice", 1)
        with pytest.raises(ClientClosed):
            await anext(outcomes)
