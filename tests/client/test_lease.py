from __future__ import annotations

import asyncio

import pytest
from tollmesh.client import AsyncCreditClient, LeaseExhausted
from tollmesh.credits.v1 import credits_pb2 as pb

from tests.client.conftest import Relay, Service


async def test_a_lease_is_spent_without_a_call_and_accounted_for_at_its_end(
    service: Service,
) -> None:
    async with AsyncCreditClient(service.process.address) as client:
        await client.grant("alice", 1000)
        async with client.lease("alice", 100, owner="edge", settle_every_s=60) as lease:
            for number in range(40):
                lease.spend(1, resource=f"file-{number % 3}")
            assert lease.available == 60
            assert (await client.balance("alice")).balance.spent == 0
            with pytest.raises(LeaseExhausted):
                lease.spend(61)
        balance = (await client.balance("alice")).balance
        assert (balance.spent, balance.held, balance.available) == (40, 0, 960)


async def test_a_lease_is_filled_up_while_it_is_spent_and_never_overspends(relay: Relay) -> None:
    spent = 0
    async with AsyncCreditClient(relay.address) as client:
        await client.grant("alice", 1000)
        async with client.lease("alice", 100, owner="edge") as lease:
            relay.swallow = 2
            async with asyncio.timeout(60):
                while spent < 1000:
                    try:
                        lease.spend(10)
                        spent += 10
                    except LeaseExhausted:
                        await asyncio.sleep(0.01)
            with pytest.raises(LeaseExhausted):
                lease.spend(10)
        balance = (await client.balance("alice")).balance
        assert (balance.spent, balance.available, balance.held) == (1000, 0, 0)
        kinds = {entry.kind async for entry in client.entries("alice")}
        assert pb.ENTRY_KIND_CAPTURE in kinds


async def test_many_resources_are_settled_in_several_calls(service: Service) -> None:
    async with AsyncCreditClient(service.process.address) as client:
        await client.grant("alice", 1000)
        async with client.lease("alice", 500, owner="edge", settle_every_s=60) as lease:
            for number in range(250):
                lease.spend(1, resource=f"file-{number}")
        assert (await client.balance("alice")).balance.spent == 250
