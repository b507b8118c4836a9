from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tollmesh.client import (
    AsyncCreditClient,
    CreditClient,
    InvalidArgument,
    Lease,
    LeaseExhausted,
    Metered,
    MeterUnknown,
)
from tollmesh.credits.v1 import credits_pb2 as pb

from tests.client.conftest import Relay, Service
from tests.support.deadline import DEADLINE_S

KIB = 1024


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
            async with asyncio.timeout(DEADLINE_S):
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


async def test_metered_spending_is_priced_when_it_is_settled(service: Service) -> None:
    hit = Metered(meter="download", quantity=KIB, cache_result=pb.CACHE_RESULT_HIT)
    miss = Metered(meter="download", quantity=KIB, cache_result=pb.CACHE_RESULT_MISS)
    async with AsyncCreditClient(service.process.address) as client:
        await client.grant("alice", 1000)
        async with client.lease("alice", 100, owner="edge", settle_every_s=60) as lease:
            for _ in range(10):
                lease.spend(metered=hit, estimate=3, resource="a file")
                lease.spend(metered=miss, estimate=3, resource="a file")
            lease.spend(5, resource="a file")
            assert lease.available == 35
            with pytest.raises(LeaseExhausted):
                lease.spend(metered=hit, estimate=36)
        balance = (await client.balance("alice")).balance
        assert (balance.spent, balance.held) == (10 * 1 + 10 * 2 + 5, 0)
        usage = {(line.meter, line.cache_result): line for line in await client.usage("alice")}
        line = usage["download", pb.CACHE_RESULT_MISS]
        assert (line.quantity, line.amount, line.count) == (10 * KIB, 20, 10)


async def test_settled_metered_spending_leaves_the_lease_what_was_set_aside_too_much(
    service: Service,
) -> None:
    async with AsyncCreditClient(service.process.address) as client:
        await client.grant("alice", 100)
        async with client.lease("alice", 100, owner="edge", settle_every_s=0.02) as lease:
            lease.spend(metered=Metered(meter="download", quantity=KIB), estimate=90)
            assert lease.available == 10
            async with asyncio.timeout(DEADLINE_S):
                while lease.available < 98:  # noqa: ASYNC110 (a condition with a deadline)
                    await asyncio.sleep(0.01)
        assert (await client.balance("alice")).balance.spent == 2


async def test_a_spending_is_an_amount_or_a_metered_quantity_with_an_estimate(
    service: Service,
) -> None:
    one = Metered(meter="download", quantity=1)
    async with AsyncCreditClient(service.process.address) as client:
        await client.grant("alice", 100)
        async with client.lease("alice", 100, owner="edge") as lease:
            with pytest.raises(ValueError, match="not both"):
                lease.spend(1, metered=one, estimate=1)
            with pytest.raises(ValueError, match="not both"):
                lease.spend()
            with pytest.raises(ValueError, match="needs an estimate"):
                lease.spend(metered=one)
            with pytest.raises(ValueError, match="is for a metered"):
                lease.spend(1, estimate=1)
            with pytest.raises(ValueError, match="not negative"):
                lease.spend(-1)
            assert lease.available == 100


async def _spend_with_faults(client: AsyncCreditClient) -> None:
    async with client.lease("alice", 500, owner="edge", settle_every_s=0.02) as lease:
        for number in range(20):
            lease.spend(1, resource=f"file-{number}")
        lease.spend(metered=Metered(meter="nothing", quantity=1), estimate=1)
        lease.spend(1, resource="x" * 300)
        async with asyncio.timeout(DEADLINE_S):
            while (await client.balance("alice")).balance.spent < 20:  # noqa: ASYNC110 (a condition with a deadline)
                await asyncio.sleep(0.01)
        for number in range(20):
            lease.spend(1, resource=f"file-{number}")


async def test_a_line_that_is_refused_keeps_no_other_from_being_settled(service: Service) -> None:
    async with AsyncCreditClient(service.process.address) as client:
        await client.grant("alice", 1000)
        with pytest.raises((MeterUnknown, InvalidArgument)):
            await _spend_with_faults(client)
        assert (await client.balance("alice")).balance.spent == 40


async def test_an_exhausted_lease_does_not_storm_the_service(service: Service) -> None:
    async with AsyncCreditClient(service.process.address) as client:
        await client.grant("alice", 10)
        begun_at = time.monotonic()
        async with client.lease("alice", 10, owner="edge", settle_every_s=60) as lease:
            lease.spend(10)
            while time.monotonic() < begun_at + 0.5:
                with pytest.raises(LeaseExhausted):
                    lease.spend(1)
                await asyncio.sleep(0)
        took_s = time.monotonic() - begun_at
    await service.process.stop()
    assert len(service.calls("SettleLease")) <= took_s / 0.02 + 2


def _spend_in_threads(address: str) -> int:
    with CreditClient(address) as client:
        client.grant("alice", 2000)
        with client.lease("alice", 100, owner="edge") as lease, ThreadPoolExecutor(8) as pool:
            spent = sum(pool.map(lambda _: _spend_until_refused(client, lease), range(8)))
        balance = client.balance("alice").balance
        assert (balance.spent, balance.held) == (spent, 0)
        return spent


def _spend_until_refused(client: CreditClient, lease: Lease) -> int:
    spent = 0
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            lease.spend(5)
            spent += 5
        except LeaseExhausted:
            if client.balance("alice").balance.available == 0 and lease.available == 0:
                break
    return spent


async def test_threads_share_a_lease_and_spend_all_there_is_and_no_more(service: Service) -> None:
    assert await asyncio.to_thread(_spend_in_threads, service.process.address) == 2000
