"""Tickets that nobody reports on in time, and reports that come late: settled once, by a policy."""

from __future__ import annotations

import pytest

from services.edge.door.door import CaptureOutcome
from tests.edge.conftest import Tenant, World, until
from tests.edge.door.test_door import a_request, client

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
