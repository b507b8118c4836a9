"""Tickets that nobody reports on in time, and reports that come late: settled once, by a policy."""

from __future__ import annotations

import pytest
from tollmesh.credits.v1 import credits_pb2

from services.edge.door.door import CaptureOutcome, Door
from tests.edge.conftest import Tenant, World, until
from tests.edge.door.test_door import a_request, client

OUTCOMES = [("release", 0, 700), ("debit_estimate", 1000, 1000)]
SHORT = {"transfer_s": 1, "slowest_bytes_per_s": 1_000_000_000}


@pytest.mark.parametrize(("policy", "paid"), [("release", 300), ("debit_estimate", 1000)])
async def test_a_ticket_without_its_last_report_is_settled_by_the_policy(
    world: World, tenant: Tenant, policy: str, paid: int
) -> None:
    async with world.edge(unreported=policy, **SHORT) as edge:
        door = edge.edge.door
        silent = await door.admit(client(tenant), a_request())
        begun = await door.admit(client(tenant), a_request())
        door.capture(begun.id, 300, final=False)
        await until(lambda: not door.open_tickets, "the tickets have ended")
        expected = {"release": [300], "debit_estimate": [1000, 1000]}[policy]
        assert await tenant.paid_bytes() == expected
        late = {"release": CaptureOutcome.LATE, "debit_estimate": CaptureOutcome.REPEATED}[policy]
        assert door.capture(silent.id, 444, final=True) is late
        assert door.capture(begun.id, 400, final=True) is late
        assert door.capture(begun.id, 400, final=True) is CaptureOutcome.REPEATED
    total = sum(await tenant.paid_bytes())
    assert total == {"release": 844, "debit_estimate": 2000}[policy]
    assert paid in await tenant.paid_bytes()


async def test_a_report_for_a_process_that_is_gone_counts_once_when_nothing_was_debited(
    world: World, tenant: Tenant
) -> None:
    async with world.edge(unreported="release", drain_s=0.1) as edge:
        door = edge.edge.door
        silent = await door.admit(client(tenant), a_request())
        begun = await door.admit(client(tenant), a_request())
        done = await door.admit(client(tenant), a_request())
        door.capture(begun.id, 300, final=False)
        door.capture(done.id, 500, final=True)
    for _ in range(2):
        async with world.edge(unreported="release") as edge:
            await tenant.paid()
            assert edge.edge.door.capture(done.id, 500, final=True) is CaptureOutcome.REPEATED
    async with world.edge(unreported="release") as edge:
        door = edge.edge.door
        assert door.capture(silent.id, 100, final=False) is CaptureOutcome.LATE
        assert door.capture(silent.id, 700, final=True) is CaptureOutcome.LATE
        assert door.capture(begun.id, 400, final=True) is CaptureOutcome.LATE
        assert door.capture(silent.id, 700, final=True) is CaptureOutcome.REPEATED
    async with world.edge(unreported="release") as edge:
        door = edge.edge.door
        assert door.capture(begun.id, 400, final=True) is CaptureOutcome.REPEATED
    assert sum(await tenant.paid_bytes()) == 700 + 400 + 500


async def _leased(door: Door, tenant: Tenant) -> None:
    """Has the account ask until the edge has a lease of it."""

    async def is_leased() -> bool:
        ticket = door.admit_now(client(tenant), a_request())
        admitted = ticket or await door.admit(client(tenant), a_request())
        door.capture(admitted.id, 0, final=True)
        return ticket is not None

    await until(is_leased, "there is a lease")


@pytest.mark.parametrize("leased", [False, True])
@pytest.mark.parametrize(("policy", "before", "after"), OUTCOMES)
async def test_what_a_dead_process_left_is_settled_by_the_policy_and_a_late_report_once(
    world: World, tenant: Tenant, leased: bool, policy: str, before: int, after: int
) -> None:
    terms = {"unreported": policy, "lease_credits": 1_000_000 if leased else 0}
    async with world.edge(**terms, drain_s=0.1) as edge:
        door = edge.edge.door
        if leased:
            await _leased(door, tenant)
        ticket = await door.admit(client(tenant), a_request())
    async with world.edge(**terms) as edge:
        await until(lambda: _nothing_is_held(tenant), "the policy settled it")
        assert await _used(tenant) == before
        door = edge.edge.door
        assert door.capture(ticket.id, 700, final=True) is CaptureOutcome.LATE
        assert door.capture(ticket.id, 700, final=True) is CaptureOutcome.REPEATED
    async with world.edge(**terms) as edge:
        assert edge.edge.door.capture(ticket.id, 700, final=True) is CaptureOutcome.REPEATED
    assert await _used(tenant) == after


async def _nothing_is_held(tenant: Tenant) -> bool:
    return (await tenant.balance()).held == 0


async def _used(tenant: Tenant) -> int:
    request = credits_pb2.GetUsageRequest(account_id=tenant.account_id)
    answer = await tenant.credits.GetUsage(request)
    return sum(line.quantity for line in answer.usage)
