from __future__ import annotations

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import InsufficientCreditError
from tests.support.credit_service import Account, Clock, Value, metered
from tests.support.ledger_audit import audit_account

BALANCE = pb.EXCESS_RULE_BALANCE
OVERDRAFT = pb.EXCESS_RULE_OVERDRAFT
SHORTFALL = pb.EXCESS_RULE_SHORTFALL


async def _hold(account: Account, amount: int, rule: Value) -> pb.Hold:
    return (await account.reserve(amount, excess_rule=rule)).hold


async def test_the_rule_for_the_excess_is_the_balance_unless_another_is_given(
    alice: Account,
) -> None:
    await alice.grant(100)
    assert (await alice.reserve(1)).hold.excess_rule == BALANCE
    for rule in (BALANCE, OVERDRAFT, SHORTFALL):
        assert (await _hold(alice, 1, rule)).excess_rule == rule


@pytest.mark.parametrize("rule", [BALANCE, OVERDRAFT, SHORTFALL])
async def test_any_rule_takes_from_the_balance_what_it_has(alice: Account, rule: Value) -> None:
    await alice.grant(100)
    hold = await _hold(alice, 60, rule)
    answer = await alice.capture(hold, 100, final=True)
    assert (answer.amount, answer.shortfall, answer.balance.available) == (100, 0, 0)
    assert (answer.hold.captured, answer.hold.shortfall) == (100, 0)
    await audit_account(alice.stub, "alice")


async def test_the_balance_rule_refuses_even_where_debits_may_overdraw(alice: Account) -> None:
    await alice.grant(100)
    await alice.set_terms(overdraft_limit=50)
    hold = await _hold(alice, 60, BALANCE)
    with pytest.raises(InsufficientCreditError) as refused:
        await alice.capture(hold, 101)
    assert refused.value.metadata == {"currency": "credit", "needed": "41", "available": "40"}
    assert (await alice.get_hold(hold)).remaining == 60
    await audit_account(alice.stub, "alice")


async def test_the_overdraft_rule_goes_down_to_the_limit(alice: Account) -> None:
    await alice.grant(100)
    await alice.set_terms(overdraft_limit=50)
    hold = await _hold(alice, 60, OVERDRAFT)
    with pytest.raises(InsufficientCreditError):
        await alice.capture(hold, 151)
    answer = await alice.capture(hold, 150)
    assert (answer.amount, answer.balance.available, answer.balance.spent) == (150, -50, 150)
    balance = (await alice.grant(80)).balance
    assert balance.available == 30
    await audit_account(alice.stub, "alice")


async def test_the_shortfall_rule_takes_what_there_is_and_records_the_rest(alice: Account) -> None:
    await alice.grant(100)
    await alice.set_terms(overdraft_limit=50)
    hold = await _hold(alice, 60, SHORTFALL)
    answer = await alice.capture(hold, 130)
    assert (answer.amount, answer.shortfall, answer.balance.available) == (100, 30, 0)
    assert (answer.hold.captured, answer.hold.shortfall) == (100, 30)
    answer = await alice.capture(hold, 5, final=True)
    assert (answer.amount, answer.shortfall, answer.hold.shortfall) == (0, 5, 35)
    assert [entry.shortfall for entry in (await alice.entries())[-2:]] == [30, 5]
    await audit_account(alice.stub, "alice")


async def test_a_shortfall_is_counted_in_usage(alice: Account) -> None:
    await alice.grant(10)
    hold = await _hold(alice, 10, SHORTFALL)
    answer = await alice.capture(hold, metered=metered("download", 10_240, "MISS"))
    assert (answer.amount, answer.shortfall) == (10, 10)
    (line,) = await alice.usage()
    assert (line.quantity, line.amount, line.shortfall) == (10_240, 10, 10)
    await audit_account(alice.stub, "alice")


async def test_nothing_is_taken_from_a_balance_that_is_below_zero(alice: Account) -> None:
    await alice.set_terms(overdraft_limit=50)
    hold = await _hold(alice, 10, SHORTFALL)
    await alice.debit(40)
    answer = await alice.capture(hold, 15)
    assert (answer.amount, answer.shortfall, answer.balance.available) == (10, 5, -50)
    await audit_account(alice.stub, "alice")


async def test_a_hold_may_use_the_overdraft_limit_and_gives_back_what_it_owes(
    alice: Account,
) -> None:
    await alice.grant(30)
    await alice.set_terms(overdraft_limit=50)
    with pytest.raises(InsufficientCreditError):
        await alice.reserve(81)
    answer = await alice.reserve(80)
    assert (answer.balance.available, answer.balance.held) == (-50, 80)
    balance = (await alice.capture(answer.hold, 20, final=True)).balance
    assert (balance.available, balance.held, balance.spent) == (10, 0, 20)
    assert [grant.remaining for grant in (await alice.balance()).grants] == [10]
    await audit_account(alice.stub, "alice")


async def test_a_refund_of_what_was_owed_pays_the_debt_or_is_credit(alice: Account) -> None:
    await alice.set_terms(overdraft_limit=50)
    debit = await alice.debit(50)
    await alice.grant(20)
    balance = (await alice.refund(debit.entry_id, 40)).balance
    assert (balance.available, balance.spent) == (10, 10)
    await audit_account(alice.stub, "alice")
    await alice.debit(10)
    assert (await alice.refund(debit.entry_id)).balance.available == 10
    await audit_account(alice.stub, "alice")


async def test_in_shadow_mode_a_hold_has_what_there_is_and_captures_record_the_rest(
    alice: Account,
) -> None:
    await alice.grant(30)
    await alice.set_terms(shadow=True)
    hold = (await alice.reserve(80)).hold
    assert (hold.amount, hold.remaining) == (30, 30)
    answer = await alice.capture(hold, 70, final=True)
    assert (answer.amount, answer.shortfall) == (30, 40)
    assert (answer.balance.available, answer.balance.spent) == (0, 30)
    await audit_account(alice.stub, "alice")


async def test_a_capture_is_replayed_with_its_shortfall(alice: Account) -> None:
    hold = await _hold(alice, 0, SHORTFALL)
    first = await alice.capture(hold, 7, request_id="short")
    replay = await alice.capture(hold, 7, request_id="short")
    assert (replay.replayed, replay.shortfall, replay.hold) == (True, 7, first.hold)


async def test_what_captures_take_of_a_meter_is_no_more_part_of_the_estimate(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    policy = pb.EXPIRY_POLICY_DEBIT_ESTIMATE
    quantity = metered("download", 10_240)
    hold = (await alice.reserve(metered=quantity, seconds=9, expiry_policy=policy)).hold
    await alice.capture(hold, metered=metered("download", 10_000))
    await alice.capture(hold, metered=metered("download", 1000))
    clock.advance(9)
    entry = (await alice.entries())[-1]
    assert entry.metered.quantity == 0
    await audit_account(alice.stub, "alice")
