"""The worked examples of docs/ledger.md come out as they are written there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import InsufficientCreditError
from tests.support.credit_service import DAY_S, Account, Clock, metered
from tests.support.ledger_audit import audit_account


def _set(clock: Clock, day: str) -> None:
    moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
    clock.now_us = round(moment.timestamp()) * 1_000_000


async def _state(account: Account, *names: str) -> tuple[int, ...]:
    balance = (await account.balance()).balance
    return tuple(getattr(balance, name) for name in names)


async def _moved(account: Account, after: int) -> list[tuple[str, int]]:
    return [
        (pb.EntryKind.Name(entry.kind).removeprefix("ENTRY_KIND_"), entry.amount)
        for entry in (await account.entries())[after:]
    ]


async def test_a_grant_of_a_hundred_a_month(bob: Account, clock: Clock) -> None:
    recurrence = pb.Recurrence(period=pb.REFILL_PERIOD_MONTH, max_rollover=20)
    _set(clock, "2027-01-31")
    await bob.grant(100, recurrence=recurrence)
    _set(clock, "2027-02-10")
    await bob.debit(30)
    _set(clock, "2027-02-28")
    assert await _state(bob, "available", "expired") == (120, 50)
    _set(clock, "2027-03-05")
    await bob.debit(115)
    _set(clock, "2027-03-31")
    assert await _state(bob, "available", "expired") == (105, 50)
    assert [kind for kind, _ in await _moved(bob, 1)] == [
        "DEBIT",
        "EXPIRE_GRANT",
        "REFILL_GRANT",
        "DEBIT",
        "REFILL_GRANT",
    ]
    await audit_account(bob.stub, "bob")


async def test_a_grant_that_is_voided(bob: Account) -> None:
    columns = ("available", "held", "spent", "voided")
    made = await bob.grant(100)
    await bob.debit(30)
    hold = (await bob.reserve(50)).hold
    assert await _state(bob, *columns) == (20, 50, 30, 0)
    await bob.void(made.grant_id)
    assert await _state(bob, *columns) == (0, 50, 30, 20)
    await bob.capture(hold, 10)
    assert await _state(bob, *columns) == (0, 40, 40, 20)
    await bob.release(hold)
    assert await _state(bob, *columns) == (0, 0, 40, 60)
    await audit_account(bob.stub, "bob")


async def test_a_debit_that_is_refunded_in_parts(bob: Account, clock: Clock) -> None:
    await bob.grant(10, expire_time=clock.after(DAY_S))
    await bob.grant(20)
    debit = await bob.debit(25)
    await bob.refund(debit.entry_id, 12)
    assert [grant.remaining for grant in (await bob.balance()).grants] == [17]
    clock.advance(DAY_S)
    assert (await bob.refund(debit.entry_id)).amount == 13
    assert await _state(bob, "available", "spent", "expired") == (20, 0, 10)
    await audit_account(bob.stub, "bob")


@pytest.mark.parametrize(
    ("rule", "amount", "taken", "available"),
    [
        (pb.EXCESS_RULE_BALANCE, 100, 100, 0),
        (pb.EXCESS_RULE_BALANCE, 130, None, 40),
        (pb.EXCESS_RULE_BALANCE, 160, None, 40),
        (pb.EXCESS_RULE_OVERDRAFT, 100, 100, 0),
        (pb.EXCESS_RULE_OVERDRAFT, 130, 130, -30),
        (pb.EXCESS_RULE_OVERDRAFT, 160, None, 40),
        (pb.EXCESS_RULE_SHORTFALL, 100, 100, 0),
        (pb.EXCESS_RULE_SHORTFALL, 130, 100, 0),
        (pb.EXCESS_RULE_SHORTFALL, 160, 100, 0),
    ],
)
async def test_a_capture_above_its_hold(
    bob: Account, rule: pb.ExcessRule.ValueType, amount: int, taken: int | None, available: int
) -> None:
    await bob.grant(100)
    await bob.set_terms(overdraft_limit=50)
    hold = (await bob.reserve(60, excess_rule=rule)).hold
    if taken is None:
        with pytest.raises(InsufficientCreditError):
            await bob.capture(hold, amount)
    else:
        answer = await bob.capture(hold, amount)
        assert (answer.amount, answer.shortfall) == (taken, amount - taken)
    assert await _state(bob, "available") == (available,)
    await audit_account(bob.stub, "bob")


@pytest.mark.parametrize(
    ("quantity", "entries", "spent", "used", "refunded"),
    [
        (4096, [("CAPTURE", 0), ("REFUND", 12)], 8, 10_240, 6144),
        (10_240, [("CAPTURE", 0)], 20, 10_240, 0),
        (12_288, [("CAPTURE", 4)], 24, 12_288, 0),
    ],
)
async def test_a_final_late_capture(
    bob: Account,
    clock: Clock,
    quantity: int,
    entries: list[tuple[str, int]],
    spent: int,
    used: int,
    refunded: int,
) -> None:
    await bob.grant(100)
    policy = pb.EXPIRY_POLICY_DEBIT_ESTIMATE
    estimate = metered("download", 10_240)
    hold = (await bob.reserve(metered=estimate, seconds=5, expiry_policy=policy)).hold
    clock.advance(5)
    assert await _state(bob, "spent") == (20,)
    await bob.capture(hold, metered=metered("download", quantity), final=True)
    assert await _moved(bob, 3) == entries
    assert await _state(bob, "spent") == (spent,)
    (line,) = await bob.usage()
    assert (line.quantity, line.refunded_quantity) == (used, refunded)
    await audit_account(bob.stub, "bob")


async def test_a_lease(bob: Account) -> None:
    await bob.grant(100)
    lease = (await bob.open_lease(40)).hold
    assert await _state(bob, "available", "spent") == (60, 0)
    assert (await bob.settle(lease, 20, 5, target_amount=50)).hold.remaining == 50
    assert await _state(bob, "available", "spent") == (25, 25)
    assert (await bob.settle(lease, 40, target_amount=50)).hold.remaining == 35
    assert await _state(bob, "available", "spent") == (0, 65)
    await bob.settle(lease, 15, final=True)
    assert await _state(bob, "available", "spent") == (20, 80)
    assert await _moved(bob, 2) == [
        ("CAPTURE", 20),
        ("CAPTURE", 5),
        ("EXTEND_HOLD", 35),
        ("CAPTURE", 40),
        ("EXTEND_HOLD", 25),
        ("CAPTURE", 15),
        ("RELEASE", 20),
    ]
    await audit_account(bob.stub, "bob")
