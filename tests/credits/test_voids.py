from __future__ import annotations

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import GrantNotFoundError, GrantNotOpenError, InsufficientCreditError
from services.credits.lots import HEAD_LOTS
from tests.support.credit_service import DAY_S, Account, Clock, metered
from tests.support.ledger_audit import audit_account

DAILY = pb.Recurrence(period=pb.REFILL_PERIOD_DAY, max_rollover=1000)


async def _moved(account: Account) -> list[tuple[str, int]]:
    return [
        (pb.EntryKind.Name(entry.kind).removeprefix("ENTRY_KIND_"), entry.amount)
        for entry in await account.entries()
    ]


async def test_a_void_takes_back_what_is_unspent(alice: Account) -> None:
    made = await alice.grant(100)
    await alice.grant(50)
    await alice.debit(30)
    answer = await alice.void(made.grant_id, resource="bounced payment")
    assert (answer.amount, answer.balance.available) == (70, 50)
    assert (answer.balance.voided, answer.balance.granted) == (70, 150)
    entry = (await alice.entries())[-1]
    assert (entry.kind, entry.amount) == (pb.ENTRY_KIND_VOID_GRANT, 70)
    assert (entry.grant_id, entry.resource) == (made.grant_id, "bounced payment")
    assert made.grant_id not in {grant.grant_id for grant in (await alice.balance()).grants}
    await audit_account(alice.stub, "alice")


async def test_a_void_is_done_once_and_replayed(alice: Account) -> None:
    made = await alice.grant(100)
    first = await alice.void(made.grant_id, request_id="void")
    replay = await alice.void(made.grant_id, request_id="void")
    assert (replay.replayed, replay.amount, replay.balance) == (True, 100, first.balance)
    with pytest.raises(GrantNotOpenError) as refused:
        await alice.void(made.grant_id)
    assert refused.value.metadata == {"state": "VOIDED"}
    await audit_account(alice.stub, "alice")


async def test_a_grant_of_which_nothing_is_left_says_why(alice: Account, clock: Clock) -> None:
    spent = await alice.grant(10)
    await alice.debit(10)
    expired = await alice.grant(10, expire_time=clock.after(5))
    clock.advance(5)
    for made, state in ((spent, "SPENT"), (expired, "EXPIRED")):
        with pytest.raises(GrantNotOpenError) as refused:
            await alice.void(made.grant_id)
        assert refused.value.metadata == {"state": state}
    await audit_account(alice.stub, "alice")


async def test_what_is_no_grant_of_the_account_is_not_found(alice: Account) -> None:
    made = await alice.grant(10)
    hold = (await alice.reserve(1)).hold
    await alice.grant(10, account_id="carol")
    for name in ("grant-1", "grant-9-00000000", hold.hold_id, made.grant_id.upper(), "-" * 64):
        with pytest.raises(GrantNotFoundError):
            await alice.void(name)
    with pytest.raises(GrantNotFoundError):
        await alice.void(made.grant_id, account_id="carol")


async def test_credit_under_a_hold_is_voided_when_it_comes_back(alice: Account) -> None:
    made = await alice.grant(100)
    await alice.grant(50)
    hold = (await alice.reserve(120)).hold
    answer = await alice.void(made.grant_id)
    assert (answer.amount, answer.balance.held, answer.balance.voided) == (0, 120, 0)
    # What is captured was spent in time.
    assert (await alice.capture(hold, 30)).balance.spent == 30
    balance = (await alice.release(hold)).balance
    assert (balance.available, balance.voided, balance.held) == (50, 70, 0)
    assert (await _moved(alice))[-2:] == [("RELEASE", 90), ("VOID_GRANT", 70)]
    await audit_account(alice.stub, "alice")


async def test_the_same_is_true_of_a_hold_that_expires(alice: Account, clock: Clock) -> None:
    made = await alice.grant(100)
    await alice.reserve(60, seconds=10)
    assert (await alice.void(made.grant_id)).amount == 40
    clock.advance(10)
    balance = (await alice.balance()).balance
    assert (balance.available, balance.voided, balance.held) == (0, 100, 0)
    await audit_account(alice.stub, "alice")


async def test_a_refund_of_voided_credit_is_voided(alice: Account) -> None:
    made = await alice.grant(100)
    debit = await alice.debit(40)
    await alice.void(made.grant_id)
    balance = (await alice.refund(debit.entry_id)).balance
    assert (balance.available, balance.spent, balance.voided) == (0, 0, 100)
    assert (await _moved(alice))[-2:] == [("REFUND", 40), ("VOID_GRANT", 40)]
    await audit_account(alice.stub, "alice")


async def test_a_void_ends_the_refills(alice: Account, clock: Clock) -> None:
    made = await alice.grant(100, recurrence=DAILY)
    clock.advance(DAY_S)
    assert (await alice.void(made.grant_id)).amount == 200
    clock.advance(5 * DAY_S)
    balance = (await alice.balance()).balance
    assert (balance.available, balance.granted, balance.voided) == (0, 200, 200)
    await audit_account(alice.stub, "alice")


async def test_a_recurring_grant_that_is_spent_can_be_voided(alice: Account, clock: Clock) -> None:
    made = await alice.grant(100, recurrence=DAILY)
    await alice.debit(100)
    assert (await alice.void(made.grant_id)).amount == 0
    clock.advance(DAY_S)
    with pytest.raises(InsufficientCreditError):
        await alice.debit(1)
    await audit_account(alice.stub, "alice")


async def test_any_of_many_grants_can_be_voided(bob: Account, clock: Clock) -> None:
    made = [
        await bob.grant(number + 1, expire_time=clock.after(1000 - number))
        for number in range(3 * HEAD_LOTS)
    ]
    available = sum(range(3 * HEAD_LOTS + 1))
    for number in range(0, 3 * HEAD_LOTS, 2):
        available -= number + 1
        answer = await bob.void(made[number].grant_id)
        assert (answer.amount, answer.balance.available) == (number + 1, available)
    for number in range(1, 3 * HEAD_LOTS, 2):
        await bob.void(made[number].grant_id)
    await audit_account(bob.stub, "bob")


async def test_an_estimate_debited_of_voided_credit_stays_debited(
    alice: Account, clock: Clock
) -> None:
    made = await alice.grant(100)
    quantity = metered("download", 10_240)
    policy = pb.EXPIRY_POLICY_DEBIT_ESTIMATE
    hold = (await alice.reserve(metered=quantity, seconds=5, expiry_policy=policy)).hold
    await alice.void(made.grant_id)
    clock.advance(5)
    assert (await alice.balance()).balance.spent == 20
    # The late capture needs less: the rest is refunded, to a grant that is void.
    await alice.capture(hold, metered=metered("download", 1024), final=True)
    balance = (await alice.balance()).balance
    assert (balance.spent, balance.voided, balance.available) == (2, 98, 0)
    await audit_account(alice.stub, "alice")
