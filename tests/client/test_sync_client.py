from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from tollmesh.client import ClientClosed, CreditClient, DeadlineExceeded, InsufficientCredit

from tests.client.conftest import Service


def _use(address: str) -> None:
    with CreditClient(address) as client, ThreadPoolExecutor(50) as pool:
        client.grant("alice", 10_000)
        answers = list(pool.map(lambda _: client.debit("alice", 1), range(1000)))
        assert len({answer.entry_id for answer in answers}) == 1000
        assert client.balance("alice").balance.spent == 1000
        assert sum(entry.amount for entry in client.entries("alice", page_size=300)) == 11_000
        with pytest.raises(InsufficientCredit):
            client.debit("alice", 10_000)
        with pytest.raises(DeadlineExceeded):
            client.debit("alice", 1, deadline_s=0)
    with pytest.raises(ClientClosed):
        client.debit("alice", 1)


async def test_fifty_threads_share_few_calls(service: Service) -> None:
    await asyncio.to_thread(_use, service.process.address)
    await service.process.stop()
    calls = service.calls("BatchDebit")
    assert len(calls) < 500
