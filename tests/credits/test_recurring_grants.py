from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits import grants, settlement
from services.credits.errors import AccountFullError, AmountOutOfRangeError, InsufficientCreditError
from services.credits.records import REFILLS
from services.rpc.errors import InvalidArgumentError
from tests.support.credit_service import DAY_S, Account, Clock, CreditService, Value
from tests.support.ledger_audit import audit_account
from tests.support.seeds import chosen_seed

MAX = 2**63 - 1


def _each(period: str, **fields: Value) -> pb.Recurrence:
    return pb.Recurrence(period=pb.RefillPeriod.Value(f"REFILL_PERIOD_{period}"), **fields)


def _at(clock: Clock, text: str) -> Timestamp:
    """Sets the clock, and says what it shows."""
    moment = Timestamp()
    moment.FromDatetime(datetime.fromisoformat(text).replace(tzinfo=UTC))
    clock.now_us = moment.ToMicroseconds()
    return moment


async def _moved(account: Account) -> list[tuple[str, int]]:
    return [
        (pb.EntryKind.Name(entry.kind).removeprefix("ENTRY_KIND_"), entry.amount)
        for entry in await account.entries()
    ]


async def test_a_period_ends_with_an_expiry_and_a_refill(alice: Account, clock: Clock) -> None:
    made = await alice.grant(100, recurrence=_each("DAY"))
    await alice.debit(30)
    clock.advance(DAY_S - 0.000_001)
    assert (await alice.balance()).balance.available == 70
    clock.advance(0.000_001)
    answer = await alice.balance()
    assert (answer.balance.available, answer.balance.granted) == (100, 200)
    assert (answer.balance.spent, answer.balance.expired) == (30, 70)
    (unspent,) = answer.grants
    assert (unspent.grant_id, unspent.remaining, unspent.amount) == (made.grant_id, 100, 100)
    assert unspent.expire_time == clock.after(DAY_S)
    assert await _moved(alice) == [
        ("GRANT", 100),
        ("DEBIT", 30),
        ("EXPIRE_GRANT", 70),
        ("REFILL_GRANT", 100),
    ]
    refill = (await alice.entries())[-1]
    assert (refill.grant_id, refill.request_id) == (made.grant_id, "")
    await audit_account(alice.stub, "alice")


async def test_a_grant_that_was_spent_is_refilled_without_an_expiry(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100, recurrence=_each("WEEK"))
    await alice.debit(100)
    with pytest.raises(InsufficientCreditError):
        await alice.debit(1)
    clock.advance(7 * DAY_S)
    assert (await alice.debit(1)).balance.available == 99
    assert await _moved(alice) == [
        ("GRANT", 100),
        ("DEBIT", 100),
        ("REFILL_GRANT", 100),
        ("DEBIT", 1),
    ]
    await audit_account(alice.stub, "alice")


@pytest.mark.parametrize(("rollover", "kept"), [(0, 0), (20, 20), (70, 70), (1000, 70)])
async def test_unspent_credit_is_carried_over_up_to_the_rollover(
    bob: Account, clock: Clock, rollover: int, kept: int
) -> None:
    await bob.grant(100, recurrence=_each("DAY", max_rollover=rollover))
    await bob.debit(30)
    clock.advance(DAY_S)
    answer = await bob.balance()
    assert (answer.balance.available, answer.balance.expired) == (100 + kept, 70 - kept)
    (unspent,) = answer.grants
    assert (unspent.remaining, unspent.amount) == (100 + kept, 100 + kept)
    await audit_account(bob.stub, "bob")


async def test_what_was_carried_over_may_be_carried_over_again(bob: Account, clock: Clock) -> None:
    await bob.grant(100, recurrence=_each("DAY", max_rollover=150))
    for available in (200, 250, 250):
        clock.advance(DAY_S)
        assert (await bob.balance()).balance.available == available
    await audit_account(bob.stub, "bob")


async def test_months_are_those_of_the_calendar_from_the_day_of_the_grant(
    bob: Account, clock: Clock
) -> None:
    _at(clock, "2027-01-31T10:20:30")
    await bob.grant(100, recurrence=_each("MONTH"))
    granted = 100
    for day in ("2027-02-28", "2027-03-31", "2027-04-30", "2027-05-31"):
        _at(clock, f"{day}T10:20:29.999999")
        assert (await bob.balance()).balance.granted == granted
        _at(clock, f"{day}T10:20:30")
        granted += 100
        assert (await bob.balance()).balance.granted == granted
    await audit_account(bob.stub, "bob")


async def test_missed_periods_are_made_up_one_after_the_other(bob: Account, clock: Clock) -> None:
    await bob.grant(100, recurrence=_each("DAY", max_rollover=30))
    await bob.debit(90)
    clock.advance(3 * DAY_S + 5)
    assert (await bob.balance()).balance.available == 130
    assert (await _moved(bob))[2:] == [
        ("REFILL_GRANT", 100),
        ("EXPIRE_GRANT", 80),
        ("REFILL_GRANT", 100),
        ("EXPIRE_GRANT", 100),
        ("REFILL_GRANT", 100),
    ]
    await audit_account(bob.stub, "bob")


async def test_years_of_missed_days_are_made_up_in_several_operations(
    memory: CreditService, bob: Account, clock: Clock
) -> None:
    await bob.grant(1, recurrence=_each("DAY"))
    days = 2 * settlement.STEPS + 20
    clock.advance(days * DAY_S)
    balance = (await bob.debit(1)).balance
    assert (balance.granted, balance.expired, balance.spent) == (days + 1, days, 1)
    clock.advance(days * DAY_S)
    await memory.sweeper.sweep()
    audit = await audit_account(bob.stub, "bob")
    assert len(audit.of_kind(pb.ENTRY_KIND_REFILL_GRANT)) == 2 * days


async def test_refills_come_without_traffic(
    memory: CreditService, bob: Account, clock: Clock
) -> None:
    await bob.grant(5, recurrence=_each("DAY"))
    clock.advance(DAY_S)
    await memory.sweeper.sweep()
    stored = await memory.store.read(
        lambda tx: [REFILLS.parts(key)[1] for key, _ in tx.range(*REFILLS.range())]
    )
    assert stored.result == [clock.now_us + DAY_S * 1_000_000]
    await audit_account(bob.stub, "bob")


async def test_there_is_no_refill_at_the_end_or_later(bob: Account, clock: Clock) -> None:
    await bob.grant(10, recurrence=_each("DAY", end_time=clock.after(2 * DAY_S)))
    clock.advance(2 * DAY_S - 1)
    assert (await bob.balance()).balance.granted == 20
    clock.advance(1)
    balance = (await bob.balance()).balance
    assert (balance.available, balance.granted, balance.expired) == (0, 20, 20)
    clock.advance(10 * DAY_S)
    assert (await bob.balance()).balance.granted == 20
    await audit_account(bob.stub, "bob")


async def test_an_end_within_the_first_period_does_not_shorten_it(
    bob: Account, clock: Clock
) -> None:
    await bob.grant(10, recurrence=_each("DAY", end_time=clock.after(5)))
    clock.advance(DAY_S - 1)
    assert (await bob.balance()).balance.available == 10
    clock.advance(1)
    balance = (await bob.balance()).balance
    assert (balance.available, balance.granted) == (0, 10)


async def test_a_balance_says_how_grants_recur(bob: Account, clock: Clock) -> None:
    end = clock.after(2 * DAY_S)
    recurrence = _each("DAY", end_time=end, max_rollover=7)
    await bob.grant(10, recurrence=recurrence)
    await bob.grant(10)
    recurring, once = (await bob.balance()).grants
    assert recurring.recurrence == recurrence
    assert recurring.next_refill_time == clock.after(DAY_S) == recurring.expire_time
    assert not once.HasField("recurrence")
    assert not once.HasField("next_refill_time")
    clock.advance(DAY_S)
    last, _ = (await bob.balance()).grants
    assert last.recurrence == recurrence
    assert not last.HasField("next_refill_time")


async def test_a_balance_says_with_what_the_present_period_began(
    bob: Account, clock: Clock
) -> None:
    await bob.grant(10, recurrence=_each("DAY", max_rollover=5))
    hold = (await bob.reserve(6, seconds=3 * DAY_S)).hold
    clock.advance(DAY_S)
    assert [grant.amount for grant in (await bob.balance()).grants] == [4 + 10]
    clock.advance(-DAY_S)
    await bob.release(hold)  # of the period before, which is not over yet again
    grants = [(grant.remaining, grant.amount) for grant in (await bob.balance()).grants]
    assert grants == [(6, 14), (14, 14)]


async def test_an_expiry_or_a_past_end_does_not_go_with_a_recurrence(
    alice: Account, clock: Clock
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await alice.grant(10, expire_time=clock.after(60), recurrence=_each("DAY"))
    assert set(refused.value.violations) == {"expire_time"}
    with pytest.raises(InvalidArgumentError) as refused:
        await alice.grant(10, recurrence=_each("DAY", end_time=clock.after(0)))
    assert set(refused.value.violations) == {"recurrence.end_time"}
    with pytest.raises(InvalidArgumentError):
        await alice.grant(10, recurrence=pb.Recurrence())
    assert not await alice.entries()


async def test_an_account_has_at_most_so_many_recurring_grants(bob: Account, clock: Clock) -> None:
    for _ in range(grants.MAX_RECURRING_GRANTS):
        await bob.grant(1, recurrence=_each("DAY"))
    await bob.debit(grants.MAX_RECURRING_GRANTS)
    with pytest.raises(AccountFullError, match="100 recurring grants") as refused:
        await bob.grant(1, recurrence=_each("DAY"))
    assert refused.value.metadata == {"limit": "100"}
    await bob.grant(1)
    clock.advance(DAY_S)
    assert (await bob.balance()).balance.available == 101
    await audit_account(bob.stub, "bob")


async def test_a_refill_never_takes_an_account_beyond_64_bits(bob: Account, clock: Clock) -> None:
    await bob.grant(100, recurrence=_each("DAY"))
    await bob.grant(MAX - 130)
    for granted in (MAX, MAX):
        clock.advance(DAY_S)
        assert (await bob.balance()).balance.granted == granted
    refills = [entry for kind, entry in await _moved(bob) if kind == "REFILL_GRANT"]
    assert refills == [30, 0]
    with pytest.raises(AmountOutOfRangeError):
        await bob.grant(1)
    await audit_account(bob.stub, "bob")


async def test_credit_under_a_hold_is_of_its_period(bob: Account, clock: Clock) -> None:
    await bob.grant(100, recurrence=_each("DAY", max_rollover=1000))
    hold = (await bob.reserve(40, seconds=2 * DAY_S)).hold
    clock.advance(DAY_S)
    balance = (await bob.balance()).balance
    assert (balance.available, balance.held) == (160, 40)
    # Its period is over: it expires when the hold gives it back.
    balance = (await bob.capture(hold, 10, final=True)).balance
    assert (balance.available, balance.expired, balance.spent) == (160, 30, 10)
    await audit_account(bob.stub, "bob")


async def test_a_hold_that_ended_before_the_period_did_is_carried_over_however_late_one_looks(
    bob: Account, clock: Clock
) -> None:
    await bob.grant(100, recurrence=_each("DAY", max_rollover=100))
    await bob.reserve(40, seconds=60)
    clock.advance(3 * DAY_S)
    assert (await _moved(bob))[2:5] == [
        ("RELEASE", 40),
        ("REFILL_GRANT", 100),
        ("EXPIRE_GRANT", 100),
    ]
    assert (await bob.balance()).balance.available == 200
    await audit_account(bob.stub, "bob")


async def test_a_voided_grants_refill_is_not_the_time_of_anothers(
    bob: Account, clock: Clock
) -> None:
    voided = await bob.grant(50, recurrence=_each("DAY"))
    clock.advance(60)
    await bob.grant(100, recurrence=_each("DAY", max_rollover=100))
    await bob.void(voided.grant_id)
    await bob.reserve(40, seconds=DAY_S - 1)  # ends between the refill that was, and the one to be
    clock.advance(DAY_S)
    assert (await _moved(bob))[-2:] == [("RELEASE", 40), ("REFILL_GRANT", 100)]
    assert (await bob.balance()).balance.available == 200
    await audit_account(bob.stub, "bob")


async def test_a_clock_that_jumps_back_changes_nothing_and_loses_nothing(
    bob: Account, clock: Clock
) -> None:
    await bob.grant(100, recurrence=_each("DAY"))
    clock.advance(DAY_S)
    assert (await bob.debit(10)).balance.available == 90
    clock.advance(-5 * DAY_S)
    balance = (await bob.debit(10)).balance
    assert (balance.available, balance.granted) == (80, 200)
    await audit_account(bob.stub, "bob")
    clock.advance(5 * DAY_S)
    assert (await bob.balance()).balance.available == 80
    clock.advance(DAY_S)
    assert (await bob.balance()).balance.available == 100
    await audit_account(bob.stub, "bob")


async def test_a_clock_that_jumps_to_the_end_of_time_ends_the_refills(
    bob: Account, clock: Clock
) -> None:
    _at(clock, "9997-06-01T00:00:00")
    await bob.grant(10, recurrence=_each("YEAR"))
    _at(clock, "9999-12-31T23:59:59")
    balance = (await bob.balance()).balance
    assert (balance.available, balance.granted) == (10, 30)
    await audit_account(bob.stub, "bob")


async def test_a_recurring_grant_is_replayed(alice: Account, clock: Clock) -> None:
    again = {"request_id": "monthly", "recurrence": _each("MONTH")}
    first = await alice.grant(10, **again)
    clock.advance(40 * DAY_S)
    replay = await alice.grant(10, **again)
    assert (replay.replayed, replay.grant_id) == (True, first.grant_id)
    assert (await alice.balance()).balance.granted == 20


async def test_any_course_of_recurring_grants_keeps_its_books(bob: Account, clock: Clock) -> None:
    seed = chosen_seed()
    dice = random.Random(seed)
    holds: list[pb.Hold] = []
    for _ in range(150):
        available = (await bob.balance()).balance.available
        match dice.randrange(6):
            case 0:
                period = dice.choice(["DAY", "DAY", "WEEK", "MONTH"])
                rollover = dice.choice([0, 5, 1000])
                recurrence = _each(period, max_rollover=rollover)
                await bob.grant(dice.randrange(1, 30), recurrence=recurrence)
            case 1:
                await bob.grant(dice.randrange(1, 30), expire_time=clock.after(dice.random() * 1e6))
            case 2:
                await bob.debit(dice.randrange(available + 1))
            case 3:
                amount = dice.randrange(available + 1)
                seconds = dice.choice([10, DAY_S, 3 * DAY_S])
                holds.append((await bob.reserve(amount, seconds=seconds)).hold)
            case 4 if holds:
                hold = await bob.get_hold(holds.pop(dice.randrange(len(holds))))
                if hold.state == pb.HOLD_STATE_OPEN:
                    await bob.capture(hold, dice.randrange(hold.remaining + 1), final=True)
            case _:
                clock.advance(dice.choice([-DAY_S, 1, DAY_S / 2, DAY_S, 5 * DAY_S]))
    await audit_account(bob.stub, "bob")


async def test_a_refill_pays_what_is_owed_first(bob: Account, clock: Clock) -> None:
    await bob.set_terms(overdraft_limit=100)
    await bob.grant(50, recurrence=_each("DAY"))
    await bob.debit(120)
    clock.advance(DAY_S)
    assert (await bob.balance()).balance.available == -20
    clock.advance(DAY_S)
    answer = await bob.balance()
    assert (answer.balance.available, answer.balance.expired) == (30, 0)
    assert [grant.remaining for grant in answer.grants] == [30]
    await audit_account(bob.stub, "bob")
