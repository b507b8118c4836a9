"""Leases when the credit service is away, answers are lost, or the edge dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from services.edge.credit.till import Till
from services.rpc.errors import DependencyUnavailableError
from tests.edge.conftest import Tenant, World, until
from tests.edge.leases.conftest import (
    HIT,
    KIB,
    Lossy,
    deliver,
    die,
    leased,
    spendable,
    till_of,
    usage,
    usage_of,
)
from tests.support.ledger_audit import audit_account


async def test_a_settlement_whose_answer_was_lost_is_done_once(
    world: World, tenant: Tenant
) -> None:
    lossy: list[Lossy] = []

    def wrap(stub: object) -> Lossy:
        lossy.append(Lossy(stub))
        return lossy[0]

    async with till_of(world, wrap) as till:
        sent = await leased(till, tenant)
        for _ in range(50):
            await deliver(till, tenant, 10 * KIB)
            sent += 10 * KIB
            await asyncio.sleep(0.005)
        assert (await usage(tenant))[HIT].quantity == sent
    assert len(lossy[0].lost) > 2
    await audit_account(tenant.credits, tenant.account_id)


async def test_while_the_credit_service_is_away_the_lease_is_spent_and_no_more(
    world: World, tenant: Tenant
) -> None:
    async with till_of(world, lease_credits=100) as till:
        sent = await leased(till, tenant)
        await world.credit_service.stop()
        while await _delivered(till, tenant):
            sent += 10 * KIB
        assert 3 <= sent // (10 * KIB) <= 12
        await world.credit_service.start()
        lines = await usage(tenant)
    assert (lines[HIT].quantity, lines[HIT].shortfall) == (sent, 0)
    await audit_account(tenant.credits, tenant.account_id)


async def _delivered(till: Till, tenant: Tenant) -> bool:
    try:
        return await deliver(till, tenant, 10 * KIB)
    except DependencyUnavailableError:
        return False


async def test_a_lease_that_was_not_renewed_is_not_spent(world: World, tenant: Tenant) -> None:
    async with till_of(world, lease_s=1.0, lease_idle_s=60.0) as till:
        await leased(till, tenant)
        payment = till.payments.take(usage_of(tenant, KIB))
        assert payment is not None
        await world.credit_service.stop()

        def is_over() -> bool:
            more = till.payments.take(usage_of(tenant, KIB))
            if more is not None:
                more.settle()
            return more is None

        await until(is_over, "spending stops")
        assert spendable(till, tenant) > 0
        await world.credit_service.start()
        payment.deliver(100)
        payment.settle()
    # Late or not, what was sent is settled.
    assert (await usage(tenant))[HIT].quantity == 20 * KIB + 100


@pytest.mark.parametrize("unreported", ["release", "debit_estimate"])
async def test_what_a_dead_process_noted_is_settled_by_the_next(
    world: World, tenant: Tenant, unreported: str
) -> None:
    estimate = unreported == "debit_estimate"
    async with till_of(world, unreported=unreported, lease_settle_s=60.0) as till:
        held = await till.payments.reserve(usage_of(tenant, 4 * KIB), guest=True)
        await leased(till, tenant)
        own = till.payments.take(usage_of(tenant, 9 * KIB))
        guest = till.payments.take(usage_of(tenant, 5 * KIB), guest=True)
        assert own is not None
        assert guest is not None
        own.deliver(3 * KIB)
        guest.deliver(KIB)
        assert held.hold_id
        assert not guest.hold_id
        die(till)
    async with till_of(world, unreported=unreported):
        line = (await usage(tenant))[HIT]
    assert line.quantity == (20 + 3 + (5 + 4 if estimate else 1)) * KIB
    assert line.amount == line.quantity // KIB
    await audit_account(tenant.credits, tenant.account_id)


@pytest.mark.parametrize("sent", [0, KIB])
async def test_what_was_reported_just_before_a_kill_is_paid_and_not_the_estimate(
    world: World, tenant: Tenant, sent: int
) -> None:
    async with till_of(world, unreported="debit_estimate") as till:
        held = await till.payments.reserve(usage_of(tenant, 4 * KIB), guest=True)
        await leased(till, tenant)
        lent = till.payments.take(usage_of(tenant, 5 * KIB), guest=True)
        assert lent is not None
        for payment in (held, lent):
            payment.deliver(sent)
            payment.settle()
        die(till)  # before anything of it has reached the credit service
    async with till_of(world, unreported="debit_estimate"):
        assert (await usage(tenant))[HIT].quantity == 20 * KIB + 2 * sent
    await audit_account(tenant.credits, tenant.account_id)


async def test_a_lease_that_a_dead_process_asked_for_is_undone(
    world: World, tenant: Tenant
) -> None:
    asked = asyncio.Event()

    class Silent(Lossy):
        def __getattr__(self, name: str) -> Callable[..., Any]:
            call = getattr(self._stub, name)

            async def silent(request: Any, **options: float) -> Any:  # noqa: ANN401 (any message)
                answer = await call(request, **options)
                if name == "OpenLease":
                    asked.set()
                    await asyncio.Event().wait()
                return answer

            return silent

    async with till_of(world, Silent) as till:
        for _ in range(2):
            await deliver(till, tenant, KIB)
        await asked.wait()
        die(till)
    assert (await tenant.balance()).held > 0
    async with till_of(world):
        assert await tenant.paid_bytes() == [KIB, KIB]


@pytest.mark.parametrize(("unsettled", "spent"), [("release", 20), ("debit_estimate", 20 + 2560)])
async def test_an_edge_that_never_comes_back_goes_by_the_policy(
    world: World, tenant: Tenant, unsettled: str, spent: int
) -> None:
    settings: Any = {"unsettled": unsettled, "lease_s": 1.0, "lease_settle_s": 60.0}
    async with till_of(world, **settings) as till:
        await leased(till, tenant)
        payment = till.payments.take(usage_of(tenant, 9 * KIB))
        assert payment is not None
        payment.deliver(3 * KIB)
        die(till)
    await tenant.paid()
    assert (await tenant.balance()).spent == spent
    # It does come back: what was sent is what is paid, whatever the policy did.
    async with till_of(world, **settings):

        async def exact() -> bool:
            return (await tenant.balance()).spent == 23

        await until(exact, "what was sent is what is paid")
    await audit_account(tenant.credits, tenant.account_id)
