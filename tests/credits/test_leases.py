from __future__ import annotations

import random
from typing import Any, cast

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import leases_pb2

from services.credits import reservations
from services.credits.errors import (
    HoldNotFoundError,
    HoldNotOpenError,
    InsufficientCreditError,
    LeaseNotOwnedError,
    MeterUnknownError,
)
from services.rpc.errors import InvalidArgumentError, RequestIdReusedError
from tests.support.credit_service import PRICES, Account, Clock, live, metered
from tests.support.ledger_audit import audit_account
from tests.support.seeds import chosen_seed

DEBIT = pb.EXPIRY_POLICY_DEBIT_ESTIMATE


async def _moved(account: Account) -> list[tuple[str, int]]:
    return [
        (pb.EntryKind.Name(entry.kind).removeprefix("ENTRY_KIND_"), entry.amount)
        for entry in await account.entries()
    ]


async def test_a_lease_sets_credit_aside_for_its_owner(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    answer = await alice.open_lease(60, seconds=30, owner="edge:eu-1")
    lease = answer.hold
    assert (lease.owner, lease.amount, lease.remaining) == ("edge:eu-1", 60, 60)
    assert (answer.balance.available, answer.balance.held) == (40, 60)
    assert lease.expire_time == clock.after(30)
    assert await alice.holds() == [lease]
    assert await alice.get_hold(lease) == lease
    with pytest.raises(InsufficientCreditError):
        await alice.debit(41)
    await audit_account(alice.stub, "alice")


async def test_a_lease_takes_what_there_is_but_not_less_than_its_minimum(alice: Account) -> None:
    await alice.grant(50)
    with pytest.raises(InsufficientCreditError) as refused:
        await alice.open_lease(60)
    assert refused.value.metadata == {"currency": "credit", "needed": "60", "available": "50"}
    with pytest.raises(InsufficientCreditError) as refused:
        await alice.open_lease(100, min_amount=51)
    assert refused.value.metadata["needed"] == "51"
    answer = await alice.open_lease(100, min_amount=50)
    assert (answer.hold.amount, answer.balance.available) == (50, 0)
    with pytest.raises(InsufficientCreditError):
        await alice.open_lease(1)
    with pytest.raises(InvalidArgumentError) as invalid:
        await alice.open_lease(1, min_amount=2)
    assert set(invalid.value.violations) == {"min_amount"}
    await audit_account(alice.stub, "alice")


async def test_spendings_are_captured_each_with_its_entry(alice: Account) -> None:
    await alice.grant(100)
    lease = (await alice.open_lease(60)).hold
    spendings = [
        leases_pb2.LeaseSpending(metered=metered("download", 4096, "HIT"), count=3, resource="a"),
        leases_pb2.LeaseSpending(metered=metered("download", 2048, "MISS"), resource="b"),
        leases_pb2.LeaseSpending(amount=5),
    ]
    answer = await alice.settle(lease, *spendings, request_id="settlement-1")
    entries = (await alice.entries())[2:]
    assert {entry.kind for entry in entries} == {pb.ENTRY_KIND_CAPTURE}
    assert {entry.request_id for entry in entries} == {"settlement-1"}
    assert [(entry.resource, entry.count) for entry in entries] == [("a", 3), ("b", 1), ("", 1)]
    assert answer.amount == sum(entry.amount for entry in entries) == answer.hold.captured
    assert answer.hold.remaining == 60 - answer.amount
    lines = {line.cache_result: line for line in await alice.usage()}
    assert lines[pb.CACHE_RESULT_HIT].count == 3
    assert lines[pb.CACHE_RESULT_MISS].count == 1
    await audit_account(alice.stub, "alice")


async def test_the_minimum_is_for_each_delivery_that_a_line_sums_up(alice: Account) -> None:
    await alice.grant(1000)
    lease = (await alice.open_lease(500)).hold

    async def amount(quantity: int, count: int) -> int:
        line = leases_pb2.LeaseSpending(metered=metered("scan", quantity), count=count)
        return (await alice.settle(lease, line)).amount

    assert await amount(900, 9) == 0
    # 100 are free still, and with them one of two deliveries.
    assert await amount(200, 2) == 10
    assert await amount(200, 4) == 20, "4 x 5 is more than 200 / 10"
    assert await amount(400, 4) == 40, "400 / 10 is more than 4 x 5"
    assert await amount(400, 0) == 40
    (line,) = await alice.usage()
    assert (line.quantity, line.amount, line.count) == (2100, 110, 20)
    await audit_account(alice.stub, "alice")


async def test_an_owner_is_told_the_tariff(alice: Account) -> None:
    answer = await cast("Any", alice.stub).GetTariff(leases_pb2.GetTariffRequest())
    meters = {meter.meter: meter for meter in answer.meters}
    assert list(meters) == sorted(PRICES)
    scan = meters["scan"]
    assert (scan.currency, scan.minimum, scan.free_quantity) == ("credit", 5, 1000)
    assert scan.free_period == pb.USAGE_PERIOD_DAY
    assert (scan.miss.numerator, scan.miss.denominator) == (1, 10)
    download = meters["download"]
    assert (download.hit.numerator, download.hit.denominator) == (1, 1024)
    assert (download.miss.numerator, download.miss.denominator) == (1, 512)
    assert download.free_period == pb.USAGE_PERIOD_UNSPECIFIED
    assert meters["probe"].shadow
    assert not download.shadow
    assert meters["parcel"].currency == "stamp"


async def test_all_spendings_are_settled_or_none(alice: Account) -> None:
    await alice.grant(100)
    lease = (await alice.open_lease(60)).hold
    with pytest.raises(MeterUnknownError):
        await alice.settle(lease, 10, metered("teleport", 1))
    with pytest.raises(InsufficientCreditError) as refused:
        await alice.settle(lease, 50, 30, 21)
    assert refused.value.metadata["needed"] == "21"
    assert (await alice.get_hold(lease)).remaining == 60
    assert (await alice.settle(lease, 50, 30, 20)).balance.available == 0
    await audit_account(alice.stub, "alice")


async def test_a_settlement_is_replayed(alice: Account) -> None:
    await alice.grant(100)
    lease = (await alice.open_lease(60)).hold
    first = await alice.settle(lease, 10, 20, request_id="s", target_amount=60)
    replay = await alice.settle(lease, 10, 20, request_id="s", target_amount=60)
    assert (replay.replayed, replay.amount, replay.hold) == (True, 30, first.hold)
    with pytest.raises(RequestIdReusedError):
        await alice.settle(lease, 10, 21, request_id="s", target_amount=60)
    assert (await alice.balance()).balance.spent == 30


async def test_a_settlement_fills_the_lease_up(alice: Account) -> None:
    await alice.grant(100)
    lease = (await alice.open_lease(40)).hold
    answer = await alice.settle(lease, 25, target_amount=50)
    assert (answer.hold.remaining, answer.hold.amount) == (50, 75)
    assert (answer.balance.available, answer.balance.held) == (25, 50)
    # As far as the balance goes.
    answer = await alice.settle(lease, 40, target_amount=50)
    assert (answer.hold.remaining, answer.balance.available) == (35, 0)
    # And never down.
    answer = await alice.settle(lease, target_amount=10)
    assert answer.hold.remaining == 35
    assert (await _moved(alice))[2:] == [
        ("CAPTURE", 25),
        ("EXTEND_HOLD", 35),
        ("CAPTURE", 40),
        ("EXTEND_HOLD", 25),
    ]
    await audit_account(alice.stub, "alice")


async def test_a_settlement_prolongs_the_lease(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    lease = (await alice.open_lease(40, seconds=30)).hold
    clock.advance(20)
    answer = await alice.settle(lease, time_to_live=live(30))
    assert answer.hold.expire_time == clock.after(30)
    assert (await alice.settle(lease)).hold.expire_time == clock.after(30)
    clock.advance(29)
    assert (await alice.get_hold(lease)).state == pb.HOLD_STATE_OPEN
    # It was alive and nothing moved, so the ledger has nothing to say.
    assert await _moved(alice) == [("GRANT", 100), ("RESERVE", 40)]
    await audit_account(alice.stub, "alice")


async def test_a_final_settlement_closes_the_lease(alice: Account) -> None:
    await alice.grant(100)
    lease = (await alice.open_lease(40)).hold
    answer = await alice.settle(lease, 15, final=True)
    assert (answer.hold.state, answer.hold.remaining) == (pb.HOLD_STATE_CAPTURED, 0)
    assert (answer.balance.available, answer.balance.held) == (85, 0)
    with pytest.raises(HoldNotOpenError) as refused:
        await alice.settle(lease, 1)
    assert refused.value.metadata == {"state": "CAPTURED"}
    await audit_account(alice.stub, "alice")


async def test_a_lease_of_which_all_was_spent_is_closed_without_an_entry(
    alice: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "MAX_OPEN_HOLDS", 1)
    await alice.grant(100)
    lease = (await alice.open_lease(40)).hold
    await alice.settle(lease, 40)
    answer = await alice.settle(lease, final=True)
    assert answer.hold.state == pb.HOLD_STATE_CAPTURED
    assert len(await alice.entries()) == 3
    await alice.open_lease(1)
    await audit_account(alice.stub, "alice")


async def test_only_its_owner_settles_a_lease_and_only_by_settling(alice: Account) -> None:
    await alice.grant(100)
    lease = (await alice.open_lease(40, owner="edge-1")).hold
    hold = (await alice.reserve(10)).hold
    with pytest.raises(LeaseNotOwnedError):
        await alice.settle(lease, 1, owner="edge-2")
    with pytest.raises(LeaseNotOwnedError):
        await alice.settle(hold, 1, owner="edge-1")
    with pytest.raises(LeaseNotOwnedError):
        await alice.capture(lease, 1)
    with pytest.raises(LeaseNotOwnedError):
        await alice.release(lease)
    with pytest.raises(LeaseNotOwnedError):
        await alice.extend_hold(lease)
    with pytest.raises(HoldNotFoundError):
        await alice.settle(pb.Hold(hold_id="hold-1"), 1)
    assert (await alice.settle(lease, 1, owner="edge-1")).amount == 1
    await audit_account(alice.stub, "alice")


async def test_an_expired_lease_gives_back_what_was_not_settled(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    lease = (await alice.open_lease(40, seconds=30)).hold
    await alice.settle(lease, 15)
    clock.advance(30)
    balance = (await alice.balance()).balance
    assert (balance.available, balance.held, balance.spent) == (85, 0, 15)
    # The owner was only late.
    answer = await alice.settle(lease, 10, 5, target_amount=40, time_to_live=live(60))
    assert (answer.amount, answer.balance.spent) == (15, 30)
    assert (answer.hold.state, answer.hold.remaining) == (pb.HOLD_STATE_EXPIRED, 0)
    answer = await alice.settle(lease, final=True)
    assert answer.hold.state == pb.HOLD_STATE_CAPTURED
    await audit_account(alice.stub, "alice")


async def test_an_expired_lease_may_debit_what_was_not_settled(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    lease = (await alice.open_lease(40, seconds=30, expiry_policy=DEBIT)).hold
    clock.advance(30)
    assert (await alice.balance()).balance.spent == 40
    answer = await alice.settle(lease, 10, metered("download", 2048), 5)
    assert (answer.amount, answer.balance.spent, answer.hold.captured) == (19, 40, 40)
    answer = await alice.settle(lease, 1, final=True)
    assert (answer.balance.available, answer.balance.spent) == (80, 20)
    assert (answer.hold.captured, answer.hold.state) == (20, pb.HOLD_STATE_CAPTURED)
    await audit_account(alice.stub, "alice")


async def test_the_ledger_says_whose_the_credit_of_a_lease_is(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    closed, debited = [
        (await alice.open_lease(20, seconds=30, expiry_policy=DEBIT, owner="edge:eu-1")).hold
        for _ in range(2)
    ]
    assert closed.resource == "edge:eu-1"
    await alice.settle(closed, 5, target_amount=25, owner="edge:eu-1")
    await alice.settle(closed, final=True, owner="edge:eu-1")
    clock.advance(30)
    await alice.settle(debited, final=True, owner="edge:eu-1")
    named = [entry.resource == "edge:eu-1" for entry in await alice.entries()]
    moved = [kind for kind, _ in await _moved(alice)]
    assert moved[:5] == ["GRANT", "RESERVE", "RESERVE", "CAPTURE", "EXTEND_HOLD"]
    assert moved[5:] == ["RELEASE", "CAPTURE", "REFUND"]
    assert named == [False, True, True, False, True, True, True, True]
    await audit_account(alice.stub, "alice")


async def test_more_than_was_leased_follows_the_excess_rule(alice: Account) -> None:
    await alice.grant(50)
    lease = (await alice.open_lease(30, excess_rule=pb.EXCESS_RULE_SHORTFALL)).hold
    answer = await alice.settle(lease, 45, 10, 3)
    assert (answer.amount, answer.shortfall, answer.balance.available) == (50, 8, 0)
    assert (answer.hold.shortfall, answer.hold.captured) == (8, 50)
    await audit_account(alice.stub, "alice")


async def test_what_a_settlement_captured_can_be_refunded(alice: Account) -> None:
    await alice.grant(100)
    lease = (await alice.open_lease(40)).hold
    await alice.settle(lease, metered("download", 10_240), 5)
    first, second = (await alice.entries())[2:]
    assert (await alice.refund(first.entry_id, 8)).balance.available == 68
    assert (await alice.refund(second.entry_id)).balance.available == 73
    await audit_account(alice.stub, "alice")


async def test_a_lease_may_use_the_overdraft_limit(alice: Account) -> None:
    await alice.grant(10)
    await alice.set_terms(overdraft_limit=20)
    answer = await alice.open_lease(100, min_amount=5)
    assert (answer.hold.amount, answer.balance.available) == (30, -20)
    balance = (await alice.settle(answer.hold, 15, final=True)).balance
    assert (balance.available, balance.held) == (-5, 0)
    await audit_account(alice.stub, "alice")


async def test_in_shadow_mode_a_lease_has_what_there_is(alice: Account) -> None:
    await alice.grant(10)
    await alice.set_terms(shadow=True)
    lease = (await alice.open_lease(100)).hold
    assert lease.amount == 10
    answer = await alice.settle(lease, 15, metered("download", 2048), target_amount=100)
    assert (answer.amount, answer.shortfall, answer.balance.available) == (10, 9, 0)
    (line,) = await alice.usage()
    assert (line.quantity, line.amount, line.shortfall) == (2048, 0, 4)
    await audit_account(alice.stub, "alice")


async def test_a_lease_takes_from_as_many_grants_as_fit(
    bob: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "MAX_HOLD_LOTS", 20)
    for _ in range(50):
        await bob.grant(2)
    answer = await bob.open_lease(100, min_amount=1)
    assert (answer.hold.remaining, answer.balance.available) == (40, 60)
    settled = await bob.settle(answer.hold, 11, target_amount=100)
    assert (settled.hold.remaining, settled.balance.available) == (39, 50)
    await audit_account(bob.stub, "bob")


async def test_a_clock_that_jumps_neither_loses_nor_doubles_a_lease(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    lease = (await alice.open_lease(40, seconds=30)).hold
    clock.advance(-3600)
    answer = await alice.settle(lease, 5, time_to_live=live(30), target_amount=40)
    assert answer.hold.expire_time == lease.expire_time
    clock.advance(86_400)
    answer = await alice.settle(lease, 5, time_to_live=live(30), target_amount=40)
    assert (answer.hold.state, answer.amount) == (pb.HOLD_STATE_EXPIRED, 5)
    clock.advance(-86_400)
    answer = await alice.settle(lease, 5, final=True)
    assert (answer.balance.spent, answer.balance.available) == (15, 85)
    await audit_account(alice.stub, "alice")


async def test_any_course_of_leases_keeps_its_books(bob: Account, clock: Clock) -> None:
    seed = chosen_seed()
    dice = random.Random(seed)
    await bob.set_terms(overdraft_limit=50)
    leases: list[pb.Hold] = []
    for _ in range(200):
        match dice.randrange(5):
            case 0:
                expires = clock.after(dice.choice([50, 500]))
                await bob.grant(dice.randrange(1, 100), expire_time=expires)
            case 1:
                policy = dice.choice([DEBIT, pb.EXPIRY_POLICY_RELEASE])
                rule = dice.choice([pb.EXCESS_RULE_OVERDRAFT, pb.EXCESS_RULE_SHORTFALL])
                try:
                    answer = await bob.open_lease(
                        100, min_amount=1, seconds=60, expiry_policy=policy, excess_rule=rule
                    )
                    leases.append(answer.hold)
                except InsufficientCreditError:
                    await bob.grant(10)
            case 2 | 3 if leases:
                lease = dice.choice(leases)
                spent = [dice.randrange(30) for _ in range(dice.randrange(4))]
                final = dice.random() < 0.2
                try:
                    await bob.settle(
                        lease,
                        *spent,
                        metered("download", dice.randrange(9000)),
                        target_amount=dice.choice([0, 100]),
                        time_to_live=live(60),
                        final=final,
                    )
                except InsufficientCreditError:
                    continue
                if final:
                    leases.remove(lease)
            case _:
                clock.advance(dice.choice([-30, 1, 20, 70]))
    await audit_account(bob.stub, "bob")


@pytest.mark.parametrize("fields", [{"amount": 0}, {"owner": ""}, {"seconds": 0}, {"seconds": 1e6}])
async def test_a_lease_that_breaks_the_contract_is_refused(
    alice: Account, fields: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgumentError):
        await alice.open_lease(**{"amount": 1, **fields})
