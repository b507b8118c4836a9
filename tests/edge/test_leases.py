"""Deliveries paid out of a lease: exact, never overspent, and without a round trip each."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub
from tollmesh.credits.v1.leases_pb2_grpc import LeaseServiceStub
from tollmesh.credits.v1.ledger_pb2_grpc import LedgerServiceStub

from services.credits import errors as credits_errors
from services.credits.errors import InsufficientCreditError
from services.edge.holds import Usage
from services.edge.lease_books import LeasePayment
from services.edge.till import Till, open_till
from services.rpc.client import connect
from services.rpc.errors import DependencyUnavailableError
from tests.edge.conftest import Tenant, World, until
from tests.support.ledger_audit import audit_account

HIT, MISS = pb.CACHE_RESULT_HIT, pb.CACHE_RESULT_MISS
KIB = 1024
LEASING = {"lease_credits": 100_000, "lease_settle_s": 0.05, "lease_idle_s": 0.3}


@asynccontextmanager
async def till_of(
    world: World, wrap: Callable[[Any], Any] = lambda stub: stub, **changes: object
) -> AsyncIterator[Till]:
    """What an edge pays with, without the edge."""
    settings = world.settings(**LEASING | changes)
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    async with connect(settings.credits_target, errors=credits_errors.ERRORS) as channel:
        till = open_till(settings, CreditServiceStub(channel), wrap(LeaseServiceStub(channel)))
        till.recover()
        yield till
        await till.payments.drain(5.0)


@pytest.fixture
async def till(world: World) -> AsyncIterator[Till]:
    async with till_of(world) as till:
        yield till


def usage_of(tenant: Tenant, quantity: int, result: int = HIT) -> Usage:
    return Usage(tenant.account_id, "download", quantity, "net/cid", result)


async def deliver(
    till: Till, tenant: Tenant, quantity: int, result: int = HIT, sent: int | None = None
) -> bool:
    """A delivery; whether it was paid out of a lease."""
    usage = usage_of(tenant, quantity, result)
    payment = till.payments.take(usage) or await till.payments.reserve(usage)
    payment.deliver(quantity if sent is None else sent)
    payment.settle()
    return isinstance(payment, LeasePayment)


async def leased(till: Till, tenant: Tenant, quantity: int = 10 * KIB) -> int:
    """Delivers until there is a lease; how many bytes of hits."""
    delivered = 0
    for _ in range(2):
        assert not await deliver(till, tenant, quantity)
        delivered += quantity
    await until(lambda: spendable(till, tenant) > 0, "a lease")
    return delivered


def spendable(till: Till, tenant: Tenant) -> int:
    return till.leases.spendable(tenant.account_id, "download")


async def usage(tenant: Tenant) -> dict[int, pb.MeterUsage]:
    """Once all is settled."""
    await tenant.paid()
    request = pb.GetUsageRequest(account_id=tenant.account_id)
    return {line.cache_result: line for line in (await tenant.credits.GetUsage(request)).usage}


def die(till: Till) -> None:
    """What SIGKILL leaves of a process: its journals."""
    for task in (*till.leases._tasks, *till.holds._tasks):
        task.cancel()


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


class Lossy:
    """A lease service of which every first answer is lost, after it has done what was asked."""

    def __init__(self, stub: Any) -> None:  # noqa: ANN401 (the stub has no class at run time)
        self._stub = stub
        self.lost: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._stub, name)

        async def lossy(request: Any, **options: float) -> Any:  # noqa: ANN401 (any message)
            answer = await call(request, **options)
            request_id = getattr(request, "request_id", "")
            if request_id and request_id not in self.lost:
                self.lost.add(request_id)
                raise DependencyUnavailableError
            return answer

        return lossy


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


async def set_terms(world: World, tenant: Tenant, **terms: object) -> None:
    async with connect(world.credit_service.address, errors=credits_errors.ERRORS) as channel:
        request = ledger_pb2.SetAccountTermsRequest(
            request_id=f"{tenant.account_id}-{len(terms)}",
            account_id=tenant.account_id,
            **cast("Any", terms),
        )
        await cast("Any", LedgerServiceStub(channel)).SetAccountTerms(request)


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


async def restart(world: World, **download: object) -> None:
    """The credit service, with another price of downloads."""
    await world.credit_service.stop()
    price = {"hit": "1/1024", "miss": "2/1024"}
    world.credit_service.prices = {"download": {**price, **download}}
    await world.credit_service.start()


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
