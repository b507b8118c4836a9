"""Edges with leases that are killed, and credit services that go away, seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.edge.credit.journal import Journal
from services.edge.credit.lease_journal import RESULTS, LeaseJournal
from tests.edge.conftest import Tenant, World, object_path, some_bytes, until
from tests.support.ledger_audit import audit_account
from tests.support.service_process import ServiceProcess, running

KILLS = 6
READERS = 8
LEASING = {"lease_credits": 1_000_000, "lease_settle_s": 0.05, "lease_idle_s": 0.5}
Noted = Counter[tuple[str, int]]
"""Bytes by hold and cache result."""


@pytest.fixture
def settings(world: World) -> dict[str, str]:
    known = world.settings(**LEASING).model_dump(exclude_unset=True)
    return {name: str(value) for name, value in known.items()}


def noted(directory: Path) -> Noted:
    """What the journals of a dead edge say was delivered under each hold that is not settled."""
    found: Noted = Counter()
    for slot in LeaseJournal(directory / "leases.journal", 1).left():
        totals = slot.delivered(with_unreported=False)
        for result in range(RESULTS):
            if slot.is_open and totals[result].quantity:
                found[slot.hold_id, result] += totals[result].quantity
    for _, entry in Journal(directory / "holds.journal", 1).left():
        if entry.hold_id and entry.delivered:
            found[entry.hold_id, entry.cache_result] += entry.delivered
    return found


async def read_on(process: ServiceProcess, cids: list[str], tenant: Tenant, seed: int) -> int:
    """Reads objects, some to the end, until the process dies; how many bytes came."""
    dice, received = random.Random(seed), 0
    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        async with aiohttp.ClientSession(f"http://{process.address}") as session:
            while True:
                path = object_path(dice.choice(cids))
                async with session.get(path, headers=tenant.headers) as response:
                    assert response.status == 200
                    limit = dice.choice([10**9, dice.randrange(200_000)])
                    async for data in response.content.iter_any():
                        received += len(data)
                        if received % 7 == 0 and len(data) > limit:
                            break
    return received


async def test_an_edge_that_is_killed_settles_all_it_noted_once(
    world: World, settings: dict[str, str], tmp_path: Path, dice: random.Random
) -> None:
    tenant = await world.tenant()
    cids = [world.chain.add(dice.randbytes(dice.randrange(1, 300_000))) for _ in range(6)]
    expected: Noted = Counter()
    received = 0
    for _ in range(KILLS):
        async with running("edge", settings, tmp_path) as process:
            readers = [
                asyncio.create_task(read_on(process, cids, tenant, dice.randrange(10**9)))
                for _ in range(READERS)
            ]
            await asyncio.sleep(0.3 + dice.random())
            await process.stop(signal.SIGKILL)
            received += sum(await asyncio.gather(*readers))
            expected |= noted(Path(settings["cache_dir"]))
    async with running("edge", settings, tmp_path) as process:
        await tenant.paid()
        assert await process.stop() == 0
    audit = await audit_account(tenant.credits, tenant.account_id)
    paid: Noted = Counter()
    for entry in audit.captures:
        paid[entry.hold_id, entry.metered.cache_result] += entry.metered.quantity
    assert {hold: paid[hold] for hold in expected} == dict(expected)
    assert any(entry.resource.startswith("edge:test:") for entry in audit.captures)
    assert audit.usage_quantity("download") == sum(paid.values()) > 0
    # A kill between the kernel's taking a slice and its note is the only loss, one a reader.
    assert sum(paid.values()) >= received - KILLS * READERS * 256 * 1024
    assert {entry.kind for entry in audit.entries}.isdisjoint({pb.ENTRY_KIND_DEBIT})


async def test_hits_go_on_within_the_lease_while_the_credit_service_is_away(
    world: World, tenant: Tenant
) -> None:
    data = some_bytes(10_240)
    cid = world.chain.add(data)
    async with world.edge(**LEASING | {"lease_credits": 200}) as edge:
        got = 0
        for _ in range(2):
            assert (await edge.get(object_path(cid), tenant)).body == data
            await edge.cached(cid)
            got += 1
        leases = edge.edge._till.leases
        await until(lambda: leases.spendable(tenant.account_id, "download") > 0, "a lease")
        await world.credit_service.stop()
        while (answer := await edge.get(object_path(cid), tenant)).status == 200:
            assert answer.headers["Tollmesh-Cost"] == "10"
            got += 1
        assert 3 <= got <= 22
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        await world.credit_service.start()
        assert sum(await tenant.paid_bytes()) == got * 10_240
    audit = await audit_account(tenant.credits, tenant.account_id)
    assert audit.balance.spent == 20 + (got - 1) * 10


async def test_what_is_available_counts_what_is_leased(world: World) -> None:
    tenant = await world.tenant(credit=100_000)
    cid = world.chain.add(some_bytes(10_240))
    async with world.edge(**LEASING) as edge:
        spent = 0
        for _ in range(40):
            answer = await edge.get(object_path(cid), tenant)
            await edge.cached(cid)
            spent += int(answer.headers["Tollmesh-Cost"])
            # Settlements lag behind; what a reader is told never rises above what there is.
            assert int(answer.headers["Tollmesh-Available"]) <= 100_000 - spent + 512
        assert (await tenant.balance()).held > 0
        assert sum(await tenant.paid_bytes()) == 40 * 10_240
        assert (await tenant.balance()).available == 100_000 - spent
