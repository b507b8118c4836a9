from __future__ import annotations

import random

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import EntryNotFoundError, RefundExceedsEntryError
from tests.support.credit_service import DAY_S, Account, Clock, metered
from tests.support.ledger_audit import audit_account
from tests.support.seeds import chosen_seed


async def _moved(account: Account) -> list[tuple[str, int]]:
    return [
        (pb.EntryKind.Name(entry.kind).removeprefix("ENTRY_KIND_"), entry.amount)
        for entry in await account.entries()
    ]


async def _remaining(account: Account) -> list[int]:
    return [grant.remaining for grant in (await account.balance()).grants]


async def test_a_refund_gives_back_a_whole_debit(alice: Account) -> None:
    await alice.grant(100)
    debit = await alice.debit(30)
    answer = await alice.refund(debit.entry_id, resource="unhappy customer")
    assert (answer.amount, answer.balance.available, answer.balance.spent) == (30, 100, 0)
    entry = (await alice.entries())[-1]
    assert (entry.entry_id, entry.kind) == (answer.entry_id, pb.ENTRY_KIND_REFUND)
    assert (entry.refunded_entry_id, entry.resource) == (debit.entry_id, "unhappy customer")
    assert await _remaining(alice) == [100]
    await audit_account(alice.stub, "alice")


async def test_refunds_may_be_partial_and_many_but_never_more_than_the_entry(
    alice: Account,
) -> None:
    await alice.grant(100)
    debit = await alice.debit(30)
    assert (await alice.refund(debit.entry_id, 10)).amount == 10
    with pytest.raises(RefundExceedsEntryError) as refused:
        await alice.refund(debit.entry_id, 21)
    assert refused.value.metadata == {"refundable": "20"}
    assert (await alice.refund(debit.entry_id, 5)).amount == 5
    assert (await alice.refund(debit.entry_id)).amount == 15
    for amount in (0, 1):
        with pytest.raises(RefundExceedsEntryError) as refused:
            await alice.refund(debit.entry_id, amount)
        assert refused.value.metadata == {"refundable": "0"}
    assert (await alice.balance()).balance.available == 100
    await audit_account(alice.stub, "alice")


async def test_a_refund_is_replayed(alice: Account) -> None:
    await alice.grant(100)
    debit = await alice.debit(30)
    first = await alice.refund(debit.entry_id, request_id="refund")
    replay = await alice.refund(debit.entry_id, request_id="refund")
    assert replay.replayed
    assert (replay.entry_id, replay.amount) == (first.entry_id, 30)
    assert (await alice.balance()).balance.available == 100


async def test_what_was_taken_last_is_given_back_first(alice: Account, clock: Clock) -> None:
    for seconds in (100, 200, 300):
        await alice.grant(10, expire_time=clock.after(seconds))
    debit = await alice.debit(25)
    await alice.refund(debit.entry_id, 7)
    assert await _remaining(alice) == [2, 10]
    await alice.refund(debit.entry_id, 10)
    assert await _remaining(alice) == [2, 10, 10]
    await alice.refund(debit.entry_id)
    assert await _remaining(alice) == [10, 10, 10]
    await audit_account(alice.stub, "alice")


async def test_credit_of_a_grant_that_is_over_expires_at_once(alice: Account, clock: Clock) -> None:
    await alice.grant(10, expire_time=clock.after(60))
    await alice.grant(10)
    debit = await alice.debit(15)
    clock.advance(60)
    balance = (await alice.refund(debit.entry_id)).balance
    assert (balance.available, balance.expired, balance.spent) == (10, 10, 0)
    assert (await _moved(alice))[-2:] == [("REFUND", 15), ("EXPIRE_GRANT", 10)]
    await audit_account(alice.stub, "alice")


async def test_credit_of_an_earlier_period_expires_at_once(alice: Account, clock: Clock) -> None:
    recurrence = pb.Recurrence(period=pb.REFILL_PERIOD_DAY, max_rollover=100)
    await alice.grant(10, recurrence=recurrence)
    early = await alice.debit(4)
    clock.advance(DAY_S)
    late = await alice.debit(4)
    balance = (await alice.refund(late.entry_id)).balance
    assert (balance.available, balance.expired) == (16, 0)
    balance = (await alice.refund(early.entry_id)).balance
    assert (balance.available, balance.expired) == (16, 4)
    await audit_account(alice.stub, "alice")


async def test_a_refund_goes_to_the_period_whose_credit_it_was(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(10, recurrence=pb.Recurrence(period=pb.REFILL_PERIOD_DAY))
    hold = (await alice.reserve(6, seconds=3 * DAY_S)).hold
    clock.advance(DAY_S)
    late = await alice.capture(hold, 8, final=True)  # 6 of yesterday, 2 of today
    balance = (await alice.refund(late.entry_id, 5)).balance
    assert (balance.available, balance.expired) == (10, 4 + 3)
    clock.advance(-DAY_S)
    assert await _remaining(alice) == [10]
    await alice.refund(late.entry_id)  # yesterday is not over yet
    grants = [(grant.remaining, grant.expire_time) for grant in (await alice.balance()).grants]
    assert grants == [(3, clock.after(DAY_S)), (10, clock.after(2 * DAY_S))]
    await audit_account(alice.stub, "alice")


async def test_a_debit_says_of_which_period_it_was(alice: Account, clock: Clock) -> None:
    await alice.grant(10, recurrence=pb.Recurrence(period=pb.REFILL_PERIOD_DAY))
    debits = [await alice.debit(amount) for amount in (4, 6)]
    clock.advance(2 * DAY_S)
    assert await _remaining(alice) == [10]
    clock.advance(-2 * DAY_S)
    for debit in debits:
        await alice.refund(debit.entry_id)
    grants = [(grant.remaining, grant.expire_time) for grant in (await alice.balance()).grants]
    assert grants == [(10, clock.after(DAY_S)), (10, clock.after(3 * DAY_S))]


async def test_a_debit_says_its_period_also_when_no_refill_is_to_come(
    alice: Account, clock: Clock
) -> None:
    recurrence = pb.Recurrence(period=pb.REFILL_PERIOD_DAY, end_time=clock.after(1.5 * DAY_S))
    await alice.grant(10, recurrence=recurrence)
    hold = (await alice.reserve(6, seconds=3 * DAY_S)).hold
    clock.advance(DAY_S)
    assert await _remaining(alice) == [10]  # the last refill
    clock.advance(-DAY_S)
    await alice.release(hold)
    debit = await alice.debit(5)
    await alice.refund(debit.entry_id)
    grants = [(grant.remaining, grant.expire_time) for grant in (await alice.balance()).grants]
    assert grants == [(6, clock.after(DAY_S)), (10, clock.after(2 * DAY_S))]
    await audit_account(alice.stub, "alice")


async def test_what_a_period_began_with_is_known_after_a_refund(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(10, recurrence=pb.Recurrence(period=pb.REFILL_PERIOD_DAY, max_rollover=5))
    clock.advance(DAY_S)
    debit = await alice.debit(15)
    await alice.refund(debit.entry_id)
    (grant,) = (await alice.balance()).grants
    assert (grant.remaining, grant.amount) == (15, 15)


async def test_of_a_grant_that_was_taken_from_twice_the_last_is_given_back_first(
    alice: Account,
) -> None:
    await alice.grant(10, priority=1)
    await alice.grant(5, priority=2)
    first = (await alice.reserve(6)).hold
    second = (await alice.reserve(9)).hold
    await alice.release(first)
    capture = await alice.capture(second, 12)  # 4 and 5 of the hold, 3 of the balance
    assert await _remaining(alice) == [3]
    await alice.refund(capture.entry_id, 3)
    assert await _remaining(alice) == [6]
    await alice.refund(capture.entry_id)
    assert await _remaining(alice) == [10, 5]
    await audit_account(alice.stub, "alice")


async def test_a_capture_is_refunded_to_where_hold_and_balance_took_it(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(10, expire_time=clock.after(100))
    hold = (await alice.reserve(10)).hold
    await alice.grant(20, expire_time=clock.after(200))
    capture = await alice.capture(hold, 15, final=True)
    await alice.refund(capture.entry_id, 8)
    assert await _remaining(alice) == [3, 20]
    await alice.refund(capture.entry_id)
    assert await _remaining(alice) == [10, 20]
    entry = (await alice.entries())[-1]
    assert (entry.hold_id, entry.refunded_entry_id) == (hold.hold_id, capture.entry_id)
    await audit_account(alice.stub, "alice")


async def test_what_an_expiry_debited_can_be_refunded(alice: Account, clock: Clock) -> None:
    await alice.grant(10)
    await alice.reserve(10, seconds=5, expiry_policy=pb.EXPIRY_POLICY_DEBIT_ESTIMATE)
    clock.advance(5)
    debited = (await alice.entries())[-1]
    assert (await alice.refund(debited.entry_id)).balance.available == 10
    await audit_account(alice.stub, "alice")


async def test_only_debits_and_captures_can_be_refunded(alice: Account) -> None:
    await alice.grant(100)
    debit = await alice.debit(1)
    hold = (await alice.reserve(10)).hold
    await alice.release(hold)
    refund = await alice.refund(debit.entry_id)
    names = {entry.entry_id for entry in await alice.entries()} - {debit.entry_id}
    for name in (*names, refund.entry_id, "2", f"{2:016X}"[1:], "f" * 16, "e\u0301"):
        with pytest.raises(EntryNotFoundError):
            await alice.refund(name)
    with pytest.raises(EntryNotFoundError):
        await alice.refund(debit.entry_id, account_id="carol")


async def test_a_debit_of_nothing_has_nothing_to_refund(alice: Account) -> None:
    debit = await alice.debit(0)
    with pytest.raises(RefundExceedsEntryError):
        await alice.refund(debit.entry_id)


async def test_refunds_of_metered_debits_are_counted_beside_the_usage(alice: Account) -> None:
    await alice.grant(100)
    debit = await alice.debit(metered=metered("download", 10_240, "MISS"))
    assert debit.amount == 20
    await alice.refund(debit.entry_id, 5)
    entry = (await alice.entries())[-1]
    assert entry.metered == metered("download", 2560, "MISS")
    (line,) = await alice.usage()
    assert (line.quantity, line.amount, line.count) == (10_240, 20, 1)
    assert (line.refunded_quantity, line.refunded_amount) == (2560, 5)
    await alice.refund(debit.entry_id)
    (line,) = await alice.usage()
    assert (line.refunded_quantity, line.refunded_amount) == (10_240, 20)
    await audit_account(alice.stub, "alice")


async def test_a_quantity_is_refunded_whole_with_the_last_of_the_amount(bob: Account) -> None:
    await bob.grant(100)
    debit = await bob.debit(metered=metered("download", 1500, "MISS"))
    assert debit.amount == 3
    for _ in range(3):
        await bob.refund(debit.entry_id, 1)
    (line,) = await bob.usage()
    assert line.refunded_quantity == 1500
    await audit_account(bob.stub, "bob")


async def test_a_refund_is_counted_on_its_own_day(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    debit = await alice.debit(metered=metered("download", 1024))
    day = clock.after(DAY_S)
    clock.advance(DAY_S)
    await alice.refund(debit.entry_id)
    (line,) = await alice.usage(start_time=day)
    assert (line.quantity, line.refunded_quantity) == (0, 1024)
    await audit_account(alice.stub, "alice")


async def test_a_debit_before_the_clock_jumped_back_can_be_refunded(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100, expire_time=clock.after(5 * DAY_S))
    debit = await alice.debit(10)
    clock.advance(-3 * DAY_S)
    assert (await alice.refund(debit.entry_id)).balance.available == 100
    await audit_account(alice.stub, "alice")


async def test_debits_in_any_order_give_everything_back(bob: Account, clock: Clock) -> None:
    seed = chosen_seed()
    dice = random.Random(seed)
    for _ in range(40):
        expires = {"expire_time": clock.after(dice.randrange(1000, 2000))}
        await bob.grant(dice.randrange(1, 20), **(expires if dice.random() < 0.5 else {}))
    granted = (await bob.balance()).balance.granted
    left = {}
    while (await bob.balance()).balance.available > 20:
        debit = await bob.debit(dice.randrange(1, 20))
        left[debit.entry_id] = debit.amount
    while left:
        entry_id = dice.choice(list(left))
        amount = dice.randrange(1, left[entry_id] + 1)
        left[entry_id] -= (await bob.refund(entry_id, amount)).amount
        if not left[entry_id]:
            del left[entry_id]
    answer = await bob.balance()
    assert (answer.balance.available, answer.balance.spent) == (granted, 0)
    assert [grant.remaining for grant in answer.grants] == [grant.amount for grant in answer.grants]
    await audit_account(bob.stub, "bob")


async def test_an_overdraft_that_is_given_back_when_it_was_paid_is_credit_of_no_grant(
    alice: Account,
) -> None:
    await alice.set_terms(overdraft_limit=50)
    owed = await alice.debit(50)
    await alice.grant(80)
    await alice.refund(owed.entry_id)
    answer = await alice.balance()
    given_back, granted = answer.grants
    assert (granted.remaining, given_back.remaining) == (30, 50)
    assert answer.balance.available == 80
    assert given_back.grant_id == ""
    assert not given_back.HasField("create_time")
    assert not given_back.HasField("expire_time")
    await audit_account(alice.stub, "alice")
