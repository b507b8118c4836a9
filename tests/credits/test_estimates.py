"""Free allowances under holds: an estimate looks at them, captures and expiries use them up.

The meter ``scan`` has 1,000 free units a day, then costs a tenth each, and 5 at least.
"""

from __future__ import annotations

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from tests.support.credit_service import Account, Clock, metered
from tests.support.ledger_audit import audit_account


@pytest.fixture
async def carol(bob: Account) -> Account:
    await bob.grant(1000)
    return bob


async def _estimated(account: Account, quantity: int) -> pb.Hold:
    policy = pb.EXPIRY_POLICY_DEBIT_ESTIMATE
    scan = metered("scan", quantity)
    return (await account.reserve(metered=scan, seconds=5, expiry_policy=policy)).hold


async def _cost(account: Account, quantity: int) -> int:
    return (await account.debit(metered=metered("scan", quantity))).amount


async def test_an_estimate_uses_up_nothing(carol: Account) -> None:
    assert (await _estimated(carol, 1200)).amount == 20
    assert await _cost(carol, 1000) == 0
    assert await _cost(carol, 100) == 10
    await audit_account(carol.stub, "bob")


async def test_a_capture_uses_up_what_is_free(carol: Account) -> None:
    hold = await _estimated(carol, 1200)
    answer = await carol.capture(hold, metered=metered("scan", 1100), final=True)
    assert answer.amount == 10
    assert await _cost(carol, 100) == 10
    await audit_account(carol.stub, "bob")


async def test_an_expiry_that_debits_uses_up_what_is_free(carol: Account, clock: Clock) -> None:
    await _estimated(carol, 1200)
    clock.advance(5)
    entry = (await carol.entries())[-1]
    assert (entry.amount, entry.metered.quantity, entry.free_quantity) == (20, 1200, 1000)
    assert await _cost(carol, 100) == 10
    await audit_account(carol.stub, "bob")


async def test_an_estimate_that_is_all_free_is_metered_at_its_expiry(
    carol: Account, clock: Clock
) -> None:
    hold = await _estimated(carol, 800)
    assert hold.amount == 0
    clock.advance(5)
    assert await _cost(carol, 200) == 0
    assert await _cost(carol, 100) == 10
    audit = await audit_account(carol.stub, "bob")
    assert audit.usage_quantity("scan") == 1100


async def test_an_extension_is_priced_behind_the_estimate(carol: Account, clock: Clock) -> None:
    hold = await _estimated(carol, 800)
    answer = await carol.extend_hold(hold, metered=metered("scan", 700), seconds=5)
    assert answer.hold.amount == 50
    clock.advance(5)
    entry = (await carol.entries())[-1]
    assert (entry.amount, entry.metered.quantity, entry.free_quantity) == (50, 1500, 1000)
    await audit_account(carol.stub, "bob")


@pytest.mark.parametrize(
    ("estimate", "parts", "spent", "next_cost"),
    [
        (1200, [700], 0, 10),
        (1200, [1300], 30, 10),
        (1200, [700, 500], 20, 10),
        (1200, [1200], 20, 10),
        (800, [1000], 0, 10),
        (800, [1100], 10, 10),
        (800, [600], 0, 0),
    ],
)
async def test_late_captures_cost_what_they_would_have_cost_in_time(
    carol: Account, clock: Clock, estimate: int, parts: list[int], spent: int, next_cost: int
) -> None:
    hold = await _estimated(carol, estimate)
    clock.advance(5)
    for quantity in parts[:-1]:
        await carol.capture(hold, metered=metered("scan", quantity))
    answer = await carol.capture(hold, metered=metered("scan", parts[-1]), final=True)
    assert answer.balance.spent == spent
    (line,) = await carol.usage()
    assert line.quantity - line.refunded_quantity == sum(parts)
    # What an estimate used up of the allowance stays used up, even if it was too high.
    assert await _cost(carol, 100) == next_cost
    await audit_account(carol.stub, "bob")
