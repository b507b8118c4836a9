"""Settlement: captures that are repeated until they succeed, late ones, and those of the dead."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
from tollmesh.credits.v1 import credits_pb2
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub

from services.credits import errors as credits_errors
from services.credits.errors import InsufficientCreditError
from services.edge.credit.holds import HoldPolicy, Holds, Usage
from services.edge.credit.journal import Entry, Journal
from services.edge.credit.ledger import Ledger
from services.edge.credit.payments import Payments
from services.rpc.client import connect
from services.rpc.errors import OverloadedError
from tests.edge.conftest import Tenant, World, object_path, some_bytes, until

MISS = credits_pb2.CACHE_RESULT_MISS


@pytest.fixture
async def holds(world: World) -> AsyncIterator[Holds]:
    async with connect(world.credit_service.address, errors=credits_errors.ERRORS) as channel:
        holds = make_holds(world.directory, CreditServiceStub(channel))
        yield holds
        await holds.drain(5.0)


def make_holds(
    directory: Path,
    stub: object,
    transfer_s: float = 600.0,
    policy: HoldPolicy | None = None,
) -> Holds:
    ledger = Ledger(stub)  # type: ignore[arg-type]  # the async stub has no class at run time
    journal = Journal(directory / "journal", 16)
    return Holds(ledger, journal, transfer_s=transfer_s, slowest_bytes_per_s=10_000, policy=policy)


def usage_of(tenant: Tenant, quantity: int = 10_240) -> Usage:
    return Usage(tenant.account_id, "download", quantity, "net/cid", MISS)


async def test_what_was_delivered_is_captured_and_the_rest_returns(
    holds: Holds, tenant: Tenant
) -> None:
    hold = await holds.reserve(usage_of(tenant))
    assert (hold.reserved.amount, (await tenant.balance()).held) == (20, 20)
    hold.deliver(5_000)
    receipt = await holds.settle(hold)
    assert receipt is not None
    assert (receipt.amount, receipt.currency) == (10, "credit")
    [entry] = await tenant.paid()
    assert (entry.metered.quantity, entry.metered.cache_result) == (5_000, MISS)
    assert entry.resource == "net/cid"


async def test_a_payment_grows_with_an_answer_of_unknown_length(
    holds: Holds, tenant: Tenant
) -> None:
    payments = Payments(holds)
    payment = await payments.reserve(usage_of(tenant))
    ends_at = payment.ends_at
    assert not payment.extend(1)
    await payments.prolong(payment, 5_120)
    assert (payment.amount, (await tenant.balance()).held) == (30, 30)
    assert payment.ends_at > ends_at
    with pytest.raises(InsufficientCreditError):
        await payments.prolong(payment, 10**12)
    payment.deliver(15_360)
    payment.settle()
    assert await tenant.paid_bytes() == [15_360]


async def test_nothing_delivered_is_released(holds: Holds, tenant: Tenant) -> None:
    hold = await holds.reserve(usage_of(tenant))
    await holds.settle(hold)
    assert await tenant.paid() == []
    assert (await tenant.balance()).available == 1_000_000_000


async def test_a_capture_waits_for_the_credit_service(
    world: World, holds: Holds, tenant: Tenant
) -> None:
    hold = await holds.reserve(usage_of(tenant))
    hold.deliver(5_000)
    await world.credit_service.stop()
    settling = holds.settle(hold)
    await until(lambda: world.credit_service.server is None)
    assert not settling.done()
    await world.credit_service.start()
    await settling
    assert await tenant.paid_bytes() == [5_000]


class CountedCalls:
    """A stub that counts the captures which it is asked for."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = CreditServiceStub(channel)
        self.captures = 0

    def __getattr__(self, name: str) -> object:
        self.captures += name == "Capture"
        return getattr(self._stub, name)


async def test_a_wall_clock_that_jumps_ends_no_repetition_early(
    world: World, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(world.credit_service.address, errors=credits_errors.ERRORS) as channel:
        counted = CountedCalls(channel)
        holds = make_holds(world.directory, counted)
        hold = await holds.reserve(usage_of(tenant))
        hold.deliver(5_000)
        await world.credit_service.stop()
        settling = holds.settle(hold)
        await until(lambda: counted.captures >= 1)
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 10 * 86_400)
        await until(lambda: settling.done() or counted.captures >= 5)
        await world.credit_service.start()
        await settling
        assert await tenant.paid_bytes() == [5_000]
        await holds.drain(5.0)


async def test_a_delivery_ends_although_the_credit_service_is_gone_and_is_paid_later(
    world: World, tenant: Tenant
) -> None:
    data = some_bytes(200_000)
    cid = world.chain.add(data)
    async with world.edge() as edge:
        world.chain.objects[cid].pause(at=100_000)
        async with edge.session.get(object_path(cid), headers=tenant.headers) as response:
            await response.content.readexactly(100_000)
            await world.credit_service.stop()
            world.chain.objects[cid].resume()
            assert await response.content.read() == data[100_000:]
        await world.credit_service.start()
        assert await tenant.paid_bytes() == [200_000]


async def test_what_is_not_settled_at_shutdown_is_settled_by_the_next_process(
    world: World, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(200_000))
    async with world.edge(drain_s=0.2) as edge:
        world.chain.objects[cid].pause(at=100_000)
        async with edge.session.get(object_path(cid), headers=tenant.headers) as response:
            await response.content.readexactly(100_000)
            await world.credit_service.stop()
            world.chain.objects[cid].resume()
            await response.content.read()
    await world.credit_service.start()
    assert (await tenant.balance()).held > 0
    async with world.edge():
        assert await tenant.paid_bytes() == [200_000]


async def test_a_late_settlement_is_taken_from_the_balance(
    world: World, holds: Holds, tenant: Tenant
) -> None:
    hold = await holds.reserve(usage_of(tenant))
    release = credits_pb2.ReleaseRequest(
        request_id="expiry", account_id=tenant.account_id, hold_id=hold.entry.hold_id
    )
    await world.credits.Release(release)  # what the expiry policy does
    hold.deliver(5_000)
    receipt = await holds.settle(hold)
    assert receipt is not None
    [entry] = await tenant.paid()
    assert (entry.kind, entry.amount) == (credits_pb2.ENTRY_KIND_DEBIT, receipt.amount)
    assert (entry.metered.quantity, entry.resource) == (5_000, "net/cid")


async def test_a_hold_that_nobody_settles_returns_to_the_balance(
    world: World, tenant: Tenant
) -> None:
    async with connect(world.credit_service.address, errors=credits_errors.ERRORS) as channel:
        holds = make_holds(world.directory, CreditServiceStub(channel), transfer_s=-60.0)
        hold = await holds.reserve(usage_of(tenant, 20_480))  # it lives for 2 s
        assert hold.entry.expires_at < time.time() + 3

        async def is_back() -> bool:
            return (await tenant.balance()).available == 1_000_000_000

        await until(is_back, "the hold expires")
        await holds.drain(1.0)


@pytest.mark.parametrize("answered", [True, False])
async def test_what_an_expiry_debited_is_refunded_when_nothing_was_delivered(
    world: World, tenant: Tenant, answered: bool
) -> None:
    policy = HoldPolicy(unsettled=credits_pb2.EXPIRY_POLICY_DEBIT_ESTIMATE)
    async with connect(world.credit_service.address, errors=credits_errors.ERRORS) as channel:
        holds = make_holds(world.directory, CreditServiceStub(channel), -60.0, policy)
        hold = await holds.reserve(usage_of(tenant, 20_480), delivery=True)  # it lives for 2 s
        if not answered:
            holds._journal.name_hold(hold.slot, "")  # as before the answer came
        assert [entry.amount for entry in await tenant.paid()] == [40], "the expiry debited it"
        next_one = make_holds(world.directory, CreditServiceStub(channel), policy=policy)
        assert next_one.recover() == 1
        await next_one.drain(5.0)
    balance = await tenant.balance()
    assert (balance.available, balance.spent, balance.held) == (1_000_000_000, 0, 0)


async def test_a_reservation_whose_answer_was_lost_is_undone(
    holds: Holds, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, reserve = 0, holds._ledger.reserve

    async def lossy(*args: object, **kwargs: object) -> object:
        nonlocal asked
        asked += 1
        answer = await reserve(*args, **kwargs)  # type: ignore[arg-type]  # passed on
        if asked == 1:
            raise OverloadedError
        return answer

    monkeypatch.setattr(holds._ledger, "reserve", lossy)
    with pytest.raises(OverloadedError):
        await holds.reserve(usage_of(tenant))

    async def is_released() -> bool:
        return (await tenant.balance()).held == 0 and asked == 2

    await until(is_released)
    assert len(await tenant.entries()) == 3, "granted, reserved, released"


async def test_a_reservation_that_a_dead_process_asked_for_is_undone(
    world: World, tenant: Tenant
) -> None:
    async with connect(world.credit_service.address, errors=credits_errors.ERRORS) as channel:
        dead = make_holds(world.directory, CreditServiceStub(channel))
        hold = await dead.reserve(usage_of(tenant))
        dead._journal.name_hold(hold.slot, "")  # as before the answer came
        next_one = make_holds(world.directory, CreditServiceStub(channel))
        assert next_one.recover() == 1
        await next_one.drain(5.0)
        assert (await tenant.balance()).held == 0
        assert await tenant.paid() == []
        assert make_holds(world.directory, CreditServiceStub(channel)).recover() == 0


async def test_a_full_journal_refuses_before_anything_is_delivered(
    holds: Holds, tenant: Tenant
) -> None:
    made = [await holds.reserve(usage_of(tenant)) for _ in range(16)]
    with pytest.raises(OverloadedError):
        await holds.reserve(usage_of(tenant))
    for hold in made:
        await holds.settle(hold)
    assert await tenant.paid() == []
    await holds.settle(await holds.reserve(usage_of(tenant)))


def test_the_journal_keeps_what_was_open(tmp_path: Path) -> None:
    entries = [
        Entry(
            account_id="account",
            request_id=f"request-{n}",
            meter="download",
            cache_result=1,
            resource="net/名",
            estimate=10 * n,
            hold_s=660,
            expires_at=1e9 + n,
            hold_id=f"hold-{n}",
            delivered=n,
        )
        for n in range(5)
    ]
    journal = Journal(tmp_path / "journal", 8)
    slots = [journal.write(entry) for entry in entries]
    journal.clear(slots[1])
    journal.note(slots[2], 2**40)
    journal.name_hold(slots[4], "h")
    # The process dies: nothing is closed, and nothing is written any more.
    again = Journal(tmp_path / "journal", 4)
    left = {entry.hold_id: entry for _, entry in again.left()}
    assert set(left) == {"hold-0", "hold-2", "hold-3", "h"}
    assert left["hold-3"] == entries[3]
    assert left["hold-2"].delivered == 2**40
    assert again.left() == []
    for _ in range(4):
        again.write(entries[0])
    with pytest.raises(OverloadedError):
        again.write(entries[0])
    again.close()
    journal.close()
