"""What deliveries out of a lease cost: minimum, what is free, shadow mode, another tariff."""

from __future__ import annotations

import asyncio
import random

import pytest

from services.credits.errors import InsufficientCreditError
from services.rpc.errors import DependencyUnavailableError
from tests.edge.conftest import World, until
from tests.edge.leases.conftest import (
    HIT,
    KIB,
    deliver,
    leased,
    restart,
    set_terms,
    till_of,
    usage,
    usage_of,
)
from tests.support.ledger_audit import audit_account


@pytest.mark.parametrize("credit", [0, 30])
async def test_an_account_in_shadow_mode_is_metered_and_never_refused(
    world: World, credit: int
) -> None:
    tenant = await world.tenant(credit=credit)
    await set_terms(world, tenant, shadow=True)
    async with till_of(world) as till:
        out_of_lease = 0
        for _ in range(50):
            out_of_lease += await deliver(till, tenant, 10 * KIB)
            await asyncio.sleep(0.005)
    line = (await usage(tenant))[HIT]
    assert out_of_lease > 0
    assert (line.quantity, line.amount, line.shortfall) == (500 * KIB, credit, 500 - credit)
    await audit_account(tenant.credits, tenant.account_id)


async def test_a_meter_in_shadow_mode_is_delivered_without_enough_credit(world: World) -> None:
    await restart(world, shadow=True)
    tenant = await world.tenant(credit=100)
    async with till_of(world) as till:
        for _ in range(30):
            await deliver(till, tenant, 10 * KIB)
            await asyncio.sleep(0.005)
    line = (await usage(tenant))[HIT]
    assert (line.quantity, line.amount, line.shortfall) == (300 * KIB, 100, 200)
    await audit_account(tenant.credits, tenant.account_id)


@pytest.mark.parametrize("credit", [0, 10_000])
async def test_what_is_free_is_free_with_and_without_leases(world: World, credit: int) -> None:
    await restart(world, free=55 * KIB, free_period="month")
    tenant = await world.tenant(credit=credit)
    sent = 0
    async with till_of(world) as till:
        for _ in range(10):
            try:
                await deliver(till, tenant, 10 * KIB)
            except InsufficientCreditError:
                continue
            sent += 10 * KIB
            await tenant.paid() if credit == 0 else await asyncio.sleep(0.01)
    line = (await usage(tenant))[HIT]
    assert line.quantity == sent == (100 if credit else 50) * KIB
    assert line.free_quantity == min(sent, 55 * KIB)
    assert line.amount == (45 if credit else 0)


async def test_each_delivery_costs_the_minimum(world: World, dice: random.Random) -> None:
    await restart(world, minimum=7)
    tenant = await world.tenant(credit=10_000)
    async with till_of(world) as till:
        for _ in range(100):
            await deliver(till, tenant, 10)
            if dice.random() < 0.1:
                await asyncio.sleep(0.02)
    line = (await usage(tenant))[HIT]
    assert (line.quantity, line.count, line.amount) == (1000, 100, 700)


async def test_leases_of_a_meter_whose_price_changed_are_closed(world: World) -> None:
    tenant = await world.tenant(credit=10_000)
    async with till_of(world, lease_idle_s=60.0) as till:
        await leased(till, tenant)
        await restart(world, hit="3/1024")

        async def renewed() -> bool:
            try:
                await till.leases._tariff.renew()
            except DependencyUnavailableError:  # it was just started again
                return False
            return True

        await until(renewed)
        assert till.payments.take(usage_of(tenant, KIB)) is None
        await leased(till, tenant)
        payment = till.payments.take(usage_of(tenant, KIB))
        assert payment is not None
        assert payment.amount == 3
        payment.settle()
