from __future__ import annotations

import random

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import (
    HoldNotFoundError,
    HoldNotOpenError,
    InsufficientCreditError,
    RefundExceedsEntryError,
)
from tests.support.credit_service import KEEP_S, Account, Clock, CreditService, Value, metered
from tests.support.ledger_audit import audit_account
from tests.support.seeds import chosen_seed

DEBIT = pb.EXPIRY_POLICY_DEBIT_ESTIMATE
RELEASE = pb.EXPIRY_POLICY_RELEASE


async def _expired(
    account: Account, clock: Clock, amount: int | None = None, **fields: Value
) -> pb.Hold:
    fields = {"expiry_policy": DEBIT, **fields}
    hold = (await account.reserve(amount, seconds=5, **fields)).hold
    clock.advance(5)
    hold = await account.get_hold(hold)
    assert hold.state == pb.HOLD_STATE_EXPIRED
    return hold


async def _moved(account: Account) -> list[tuple[str, int]]:
    return [
        (pb.EntryKind.Name(entry.kind).removeprefix("ENTRY_KIND_"), entry.amount)
        for entry in await account.entries()
    ]


async def test_a_hold_that_was_released_is_paid_from_the_balance(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    hold = await _expired(alice, clock, 60, expiry_policy=RELEASE)
    assert (await alice.balance()).balance.available == 100
    answer = await alice.capture(hold, 40)
    assert (answer.amount, answer.balance.available, answer.balance.spent) == (40, 60, 40)
    assert (answer.hold.captured, answer.hold.state) == (40, pb.HOLD_STATE_EXPIRED)
    answer = await alice.capture(hold, 10, final=True)
    assert (answer.hold.captured, answer.hold.state) == (50, pb.HOLD_STATE_CAPTURED)
    with pytest.raises(HoldNotOpenError):
        await alice.capture(hold, 1)
    await audit_account(alice.stub, "alice")


async def test_what_the_expiry_debited_counts_first(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    hold = await _expired(alice, clock, 60)
    answer = await alice.capture(hold, 40)
    assert (answer.amount, answer.balance.available, answer.balance.spent) == (40, 40, 60)
    answer = await alice.capture(hold, 30)
    assert (answer.amount, answer.balance.available, answer.balance.spent) == (30, 30, 70)
    assert (await _moved(alice))[-3:] == [("CAPTURE", 60), ("CAPTURE", 0), ("CAPTURE", 10)]
    assert answer.hold.captured == 70
    await audit_account(alice.stub, "alice")


async def test_a_final_late_capture_refunds_what_was_debited_too_much(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    hold = await _expired(alice, clock, 60)
    answer = await alice.capture(hold, 40, final=True)
    assert (answer.amount, answer.balance.available, answer.balance.spent) == (40, 60, 40)
    assert (answer.hold.captured, answer.hold.state) == (40, pb.HOLD_STATE_CAPTURED)
    debited, _, refund = (await alice.entries())[-3:]
    assert (refund.kind, refund.amount) == (pb.ENTRY_KIND_REFUND, 20)
    assert (refund.refunded_entry_id, refund.hold_id) == (debited.entry_id, hold.hold_id)
    await audit_account(alice.stub, "alice")


async def test_nothing_used_gives_everything_back(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    quantity = metered("download", 10_240)
    hold = await _expired(alice, clock, metered=quantity)
    answer = await alice.capture(hold, 0, final=True)
    assert (answer.amount, answer.balance.available, answer.balance.spent) == (0, 100, 0)
    (line,) = await alice.usage()
    assert (line.quantity, line.refunded_quantity) == (10_240, 10_240)
    assert (line.amount, line.refunded_amount) == (20, 20)
    await audit_account(alice.stub, "alice")


@pytest.mark.parametrize(
    ("quantity", "amount", "refunded"), [(4096, 8, 6144), (10_240, 20, 0), (20_480, 40, 0)]
)
async def test_usage_is_what_was_used_in_the_end(
    alice: Account, clock: Clock, quantity: int, amount: int, refunded: int
) -> None:
    await alice.grant(100)
    hold = await _expired(alice, clock, metered=metered("download", 10_240))
    answer = await alice.capture(hold, metered=metered("download", quantity), final=True)
    assert (answer.amount, answer.balance.spent) == (amount, amount)
    (line,) = await alice.usage()
    assert (line.quantity - line.refunded_quantity, line.refunded_quantity) == (quantity, refunded)
    assert line.amount - line.refunded_amount == amount
    await audit_account(alice.stub, "alice")


async def test_late_captures_in_parts_come_to_the_same(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    hold = await _expired(alice, clock, metered=metered("download", 10_240))
    for _ in range(3):
        await alice.capture(hold, metered=metered("download", 2048))
    answer = await alice.capture(hold, metered=metered("download", 1024), final=True)
    assert (answer.hold.captured, answer.balance.spent) == (14, 14)
    (line,) = await alice.usage()
    assert line.quantity - line.refunded_quantity == 7168
    await audit_account(alice.stub, "alice")


async def test_an_amount_accounts_for_the_same_part_of_the_estimate(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    hold = await _expired(alice, clock, metered=metered("download", 10_240))
    answer = await alice.capture(hold, 5, final=True)
    assert answer.balance.spent == 5
    (line,) = await alice.usage()
    assert line.quantity - line.refunded_quantity == 2560
    await audit_account(alice.stub, "alice")


async def test_another_meter_than_the_estimates_is_metered_whole(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    hold = await _expired(alice, clock, metered=metered("download", 10_240))
    await alice.capture(hold, metered=metered("upload", 2048), final=True)
    lines = {line.meter: line for line in await alice.usage()}
    assert lines["upload"].quantity == 2048
    await audit_account(alice.stub, "alice")


async def test_what_exceeds_the_debit_follows_the_excess_rule(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    refused = await _expired(alice, clock, 60)
    short = await _expired(alice, clock, 30, excess_rule=pb.EXCESS_RULE_SHORTFALL)
    with pytest.raises(InsufficientCreditError) as error:
        await alice.capture(refused, 71, final=True)
    assert error.value.metadata == {"currency": "credit", "needed": "11", "available": "10"}
    answer = await alice.capture(short, 45, final=True)
    assert (answer.amount, answer.shortfall, answer.hold.shortfall) == (40, 5, 5)
    # The refusal has changed nothing: as much as was debited can still be captured.
    assert (await alice.capture(refused, 60, final=True)).amount == 60
    await audit_account(alice.stub, "alice")


async def test_a_late_capture_may_overdraw_where_the_hold_says_so(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(20)
    await alice.set_terms(overdraft_limit=10)
    hold = await _expired(alice, clock, 20, excess_rule=pb.EXCESS_RULE_OVERDRAFT)
    answer = await alice.capture(hold, 30, final=True)
    assert (answer.amount, answer.balance.available) == (30, -10)
    await audit_account(alice.stub, "alice")


async def test_a_refund_and_a_late_capture_give_nothing_back_twice(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    hold = await _expired(alice, clock, metered=metered("download", 10_240))
    debited = (await alice.entries())[-1]
    assert (await alice.refund(debited.entry_id, 12)).balance.available == 92
    answer = await alice.capture(hold, 5, final=True)
    # 8 of the debit were left: 5 of them are what was captured, and 3 go back.
    assert (answer.balance.available, answer.balance.spent) == (95, 5)
    with pytest.raises(RefundExceedsEntryError) as refused:
        await alice.refund(debited.entry_id, 6)
    assert refused.value.metadata == {"refundable": "5"}
    assert (await alice.refund(debited.entry_id)).balance.available == 100
    await audit_account(alice.stub, "alice")


async def test_a_debit_that_was_refunded_counts_no_more(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    hold = await _expired(alice, clock, 60)
    await alice.refund((await alice.entries())[-1].entry_id)
    answer = await alice.capture(hold, 25, final=True)
    assert (answer.amount, answer.balance.available, answer.balance.spent) == (25, 75, 25)
    await audit_account(alice.stub, "alice")


async def test_credit_of_a_grant_that_is_over_expires_when_it_is_refunded(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(60, expire_time=clock.after(10))
    hold = await _expired(alice, clock, 60)
    clock.advance(60)
    balance = (await alice.capture(hold, 25, final=True)).balance
    assert (balance.available, balance.spent, balance.expired) == (0, 25, 35)
    await audit_account(alice.stub, "alice")


async def test_a_late_capture_is_replayed(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    hold = await _expired(alice, clock, 60)
    first = await alice.capture(hold, 10, final=True, request_id="late")
    replay = await alice.capture(hold, 10, final=True, request_id="late")
    assert (replay.replayed, replay.hold, replay.amount) == (True, first.hold, 10)
    assert (await alice.balance()).balance.spent == 10


async def test_a_hold_is_too_late_when_it_is_forgotten(
    memory: CreditService, bob: Account, clock: Clock
) -> None:
    await bob.grant(100)
    hold = await _expired(bob, clock, 60)
    clock.advance(KEEP_S - 1)
    await memory.sweeper.sweep()
    await bob.capture(hold, 1)
    clock.advance(3)
    await memory.sweeper.sweep()
    with pytest.raises(HoldNotFoundError):
        await bob.capture(hold, 1)
    await audit_account(bob.stub, "bob")


async def test_a_clock_that_jumped_forth_and_back_costs_nobody_anything(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    hold = (await alice.reserve(60, seconds=30, expiry_policy=DEBIT)).hold
    clock.advance(3600)
    assert (await alice.get_hold(hold)).state == pb.HOLD_STATE_EXPIRED
    clock.advance(-3600)
    balance = (await alice.capture(hold, 35, final=True)).balance
    assert (balance.spent, balance.held) == (35, 0)
    assert (await alice.balance()).balance.available == 65
    await audit_account(alice.stub, "alice")


async def test_any_course_of_late_captures_and_refunds_keeps_its_books(
    bob: Account, clock: Clock
) -> None:
    seed = chosen_seed()
    dice = random.Random(seed)
    await bob.grant(100_000)
    rules = [pb.EXCESS_RULE_BALANCE, pb.EXCESS_RULE_SHORTFALL]
    for _ in range(40):
        meter = dice.choice(["download", "free", "upload"])
        quantity = metered(meter, dice.randrange(20_000))
        price: dict[str, Value] = dice.choice([{"metered": quantity}, {"amount": 50}])
        rule = dice.choice(rules)
        hold = await _expired(bob, clock, excess_rule=rule, **price)
        debited = (await bob.entries(newest_first=True))[0]
        for _ in range(dice.randrange(4)):
            if dice.random() < 0.3 and debited.amount:
                try:
                    await bob.refund(debited.entry_id, dice.randrange(1, debited.amount + 1))
                except RefundExceedsEntryError:
                    continue
            elif dice.random() < 0.5:
                await bob.capture(hold, dice.randrange(60))
            else:
                await bob.capture(hold, metered=metered(meter, dice.randrange(15_000)))
        if dice.random() < 0.7:
            before = (await bob.balance()).balance
            answer = await bob.capture(hold, dice.randrange(10), final=True)
            assert answer.hold.captured >= 0
            assert (await bob.balance()).balance.spent <= before.spent + 10
    await audit_account(bob.stub, "bob")
