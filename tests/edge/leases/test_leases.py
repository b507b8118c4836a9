"""Deliveries paid out of a lease: exact, never overspent, and without a round trip each."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from services.credits.errors import InsufficientCreditError
from services.edge.credit.till import Till
from tests.edge.conftest import Tenant, World, until
from tests.edge.leases.conftest import (
    HIT,
    KIB,
    MISS,
    deliver,
    leased,
    spendable,
    till_of,
    usage,
    usage_of,
)
from tests.support.ledger_audit import audit_account


async def test_what_was_sent_is_what_is_settled(
    till: Till, tenant: Tenant, dice: random.Random
) -> None:
    sent: Counter[int] = Counter({HIT: await leased(till, tenant)})
    out_of_lease = 0
    for _ in range(300):
        quantity, result = dice.randrange(1, 50_000), dice.choice([HIT, MISS])
        part = dice.choice([0, dice.randrange(quantity), quantity])
        out_of_lease += await deliver(till, tenant, quantity, result, part)
        sent[result] += part
        if dice.random() < 0.05:
            await asyncio.sleep(dice.random() / 20)
    assert out_of_lease > 200
    lines = await usage(tenant)
    assert {result: line.quantity for result, line in lines.items()} == dict(sent)
    of_leases = [entry for entry in await tenant.paid() if entry.resource.startswith("edge:test:")]
    assert len({entry.resource for entry in of_leases}) == 1
    audit = await audit_account(tenant.credits, tenant.account_id)
    assert sum(entry.metered.quantity for entry in audit.captures) == sum(sent.values())
    assert audit.balance.held == 0


async def test_one_request_gets_no_lease_and_an_idle_lease_is_given_back(
    till: Till, tenant: Tenant
) -> None:
    await deliver(till, tenant, KIB)
    assert await tenant.paid_bytes() == [KIB]
    await deliver(till, tenant, KIB)
    await until(lambda: spendable(till, tenant) > 0, "a lease")
    assert (await tenant.balance()).held == 256, "a few hundred such deliveries"
    assert await deliver(till, tenant, KIB)
    await until(lambda: spendable(till, tenant) == 0, "the lease is closed")
    assert await tenant.paid_bytes() == [KIB] * 3
    assert not await deliver(till, tenant, KIB)


async def test_a_lease_grows_with_what_is_spent(till: Till, tenant: Tenant) -> None:
    await leased(till, tenant, KIB)
    for _ in range(20_000):
        await deliver(till, tenant, KIB)
        if spendable(till, tenant) > 10_000:
            break
        await asyncio.sleep(0)
    assert spendable(till, tenant) > 10_000


async def test_two_hundred_deliveries_at_once_over_two_edges_never_overspend(world: World) -> None:
    tenant = await world.tenant(credit=3000)
    refused = 0

    async with till_of(world) as first, till_of(world, cache_dir=world.directory / "two") as second:

        async def one(till: Till) -> int:
            nonlocal refused
            try:
                await deliver(till, tenant, 10 * KIB)
            except InsufficientCreditError:
                refused += 1
                return 0
            return 10 * KIB

        sent = 0
        for _ in range(3):
            tasks = [one(till) for till in (first, second) for _ in range(100)]
            sent += sum(await asyncio.gather(*tasks))
            await until(lambda: not (first.leases._opening or second.leases._opening))
        lines = await usage(tenant)
    assert refused > 0
    assert lines[HIT].quantity == sent
    assert lines[HIT].shortfall == 0
    audit = await audit_account(tenant.credits, tenant.account_id)
    assert audit.balance.spent == sent // KIB <= 3000


async def test_a_lease_never_makes_its_own_account_refused(world: World) -> None:
    tenant = await world.tenant(credit=1000)
    async with till_of(world, lease_idle_s=60.0) as till:
        await leased(till, tenant, KIB)
        assert (await tenant.balance()).available == 998 - 124
        # Nothing under way: the lease is closed.
        assert not await deliver(till, tenant, 990 * KIB, sent=KIB)
        await until(lambda: spendable(till, tenant) == 0, "the lease is closed")
        await leased(till, tenant, KIB)
        # Something under way: the lease is filled up.
        payment = till.payments.take(usage_of(tenant, KIB))
        assert payment is not None
        assert await deliver(till, tenant, 980 * KIB, sent=KIB)
        with pytest.raises(InsufficientCreditError) as refused:
            await deliver(till, tenant, 1001 * KIB)
        payment.settle()
    assert refused.value.metadata["needed"] == "1001"
    assert refused.value.metadata["available"] == str(1000 - 6 - 1)


async def test_who_has_too_little_is_told_where_to_get_more(world: World) -> None:
    tenant = await world.tenant(credit=7)
    async with till_of(world, top_up_url="https://pay.example/") as till:
        with pytest.raises(InsufficientCreditError) as refused:
            await deliver(till, tenant, 10 * KIB)
    assert refused.value.metadata == {
        "currency": "credit",
        "needed": "10",
        "available": "7",
        "top_up_url": "https://pay.example/",
    }


async def test_a_payment_out_of_a_lease_grows_beyond_it(world: World) -> None:
    tenant = await world.tenant(credit=1000)
    async with till_of(world) as till:
        await leased(till, tenant, KIB)
        payment = till.payments.take(usage_of(tenant, KIB))
        assert payment is not None
        assert not payment.extend(800 * KIB)
        await till.payments.prolong(payment, 800 * KIB)
        assert payment.amount == 801
        with pytest.raises(InsufficientCreditError) as refused:
            await till.payments.prolong(payment, 500 * KIB)
        assert refused.value.metadata["available"] == str(1000 - 2 - 801)
        payment.deliver(801 * KIB)
        payment.settle()
        assert (await usage(tenant))[HIT].amount == 803


async def test_when_there_is_no_room_for_another_lease_deliveries_are_reserved(
    world: World, tenant: Tenant
) -> None:
    other = await world.tenant()
    async with till_of(world, leases=1, lease_idle_s=60.0) as till:
        await leased(till, tenant)
        for _ in range(5):
            assert not await deliver(till, other, KIB)
        assert await deliver(till, tenant, KIB)
    assert sum(await other.paid_bytes()) == 5 * KIB


async def test_a_long_delivery_outlives_the_lease_that_it_began_with(
    world: World, tenant: Tenant
) -> None:
    async with till_of(world, lease_s=1.0) as till:
        await leased(till, tenant)
        payment = till.payments.take(usage_of(tenant, KIB))
        assert payment is not None
        ends_at = payment.ends_at
        await until(lambda: payment.ends_at > ends_at + 2.0, "the lease is renewed")
        payment.deliver(KIB)
        payment.settle()
        assert (await usage(tenant))[HIT].quantity == 21 * KIB
