from __future__ import annotations

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits import reservations
from services.credits.errors import (
    AccountFullError,
    HoldNotFoundError,
    HoldNotOpenError,
    InsufficientCreditError,
)
from services.credits.records import HOLD_EXPIRIES
from services.rpc.errors import InvalidArgumentError
from services.store.errors import PageTokenInvalidError as StorePageTokenInvalidError
from tests.support.credit_service import Account, Clock, CreditService, Value, metered
from tests.support.ledger_audit import audit_account

DEBIT = pb.EXPIRY_POLICY_DEBIT_ESTIMATE


async def test_an_extension_prolongs_a_hold(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    hold = (await alice.reserve(60, seconds=30)).hold
    clock.advance(20)
    answer = await alice.extend_hold(hold, seconds=30)
    assert answer.hold.expire_time == clock.after(30)
    assert (answer.hold.amount, answer.hold.remaining) == (60, 60)
    clock.advance(29)
    assert (await alice.get_hold(hold)).state == pb.HOLD_STATE_OPEN
    clock.advance(1)
    assert (await alice.get_hold(hold)).state == pb.HOLD_STATE_EXPIRED
    assert (await alice.entries())[2].kind == pb.ENTRY_KIND_EXTEND_HOLD
    await audit_account(alice.stub, "alice")


async def test_a_later_expiry_stays(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    hold = (await alice.reserve(60, seconds=30)).hold
    answer = await alice.extend_hold(hold, 10, seconds=5)
    assert answer.hold.expire_time == hold.expire_time == clock.after(30)
    assert answer.hold.remaining == 70
    await audit_account(alice.stub, "alice")


async def test_an_extension_may_add_to_a_hold(alice: Account) -> None:
    await alice.grant(50)
    await alice.grant(50)
    hold = (await alice.reserve(30)).hold
    answer = await alice.extend_hold(hold, 40)
    assert (answer.hold.amount, answer.hold.remaining) == (70, 70)
    assert (answer.balance.available, answer.balance.held) == (30, 70)
    entry = (await alice.entries())[-1]
    assert (entry.kind, entry.amount, entry.hold_id) == (
        pb.ENTRY_KIND_EXTEND_HOLD,
        40,
        hold.hold_id,
    )
    await alice.capture(hold, 45)
    assert (await alice.release(hold)).amount == 25
    assert [grant.remaining for grant in (await alice.balance()).grants] == [5, 50]
    await audit_account(alice.stub, "alice")


async def test_an_extension_is_all_or_nothing(alice: Account, clock: Clock) -> None:
    await alice.grant(50)
    hold = (await alice.reserve(30, seconds=10)).hold
    with pytest.raises(InsufficientCreditError):
        await alice.extend_hold(hold, 21, seconds=60)
    clock.advance(10)
    with pytest.raises(HoldNotOpenError):
        await alice.extend_hold(hold, 1)
    with pytest.raises(HoldNotFoundError):
        await alice.extend_hold(pb.Hold(hold_id="hold-1"))
    await audit_account(alice.stub, "alice")


async def test_a_metered_extension_adds_to_the_estimate(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    quantity = metered("download", 10_240)
    hold = (await alice.reserve(metered=quantity, seconds=10, expiry_policy=DEBIT)).hold
    answer = await alice.extend_hold(hold, metered=metered("download", 5120), seconds=10)
    assert answer.hold.amount == 30
    clock.advance(10)
    assert (await alice.balance()).balance.spent == 30
    (line,) = await alice.usage()
    assert (line.quantity, line.amount) == (15_360, 30)
    await audit_account(alice.stub, "alice")


async def test_an_extension_is_replayed(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    hold = (await alice.reserve(10)).hold
    first = await alice.extend_hold(hold, 5, request_id="more")
    clock.advance(5)
    replay = await alice.extend_hold(hold, 5, request_id="more")
    assert (replay.replayed, replay.hold) == (True, first.hold)
    assert (await alice.get_hold(hold)).remaining == 15


@pytest.mark.parametrize("seconds", [0, 604_801])
async def test_a_life_that_is_none_or_too_long_is_refused(alice: Account, seconds: int) -> None:
    await alice.grant(10)
    hold = (await alice.reserve(1)).hold
    with pytest.raises(InvalidArgumentError):
        await alice.extend_hold(hold, seconds=seconds)


async def test_a_clock_that_jumps_back_neither_shortens_nor_ends_a_hold(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    hold = (await alice.reserve(10, seconds=60)).hold
    clock.advance(-3600)
    assert (await alice.extend_hold(hold, seconds=60)).hold.expire_time == hold.expire_time
    clock.advance(3600)
    assert (await alice.get_hold(hold)).state == pb.HOLD_STATE_OPEN
    clock.advance(60)
    assert (await alice.get_hold(hold)).state == pb.HOLD_STATE_EXPIRED
    await audit_account(alice.stub, "alice")


async def test_a_hold_that_was_extended_often_expires_once(
    memory: CreditService, bob: Account, clock: Clock
) -> None:
    await bob.grant(100)
    hold = (await bob.reserve(10, seconds=5)).hold
    for _ in range(20):
        await bob.extend_hold(hold, 1, seconds=5)
        clock.advance(4)
    expiries = await memory.store.read(lambda tx: len(tx.range(*HOLD_EXPIRIES.range("bob"))))
    assert expiries.result == 1
    clock.advance(5)
    await memory.sweeper.sweep()
    assert (await bob.balance()).balance.available == 100
    await audit_account(bob.stub, "bob")


async def test_a_hold_can_be_looked_at_in_any_state(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    fields: dict[str, Value] = {
        "resource": "bafkr6i-object",
        "expiry_policy": DEBIT,
        "excess_rule": pb.EXCESS_RULE_SHORTFALL,
    }
    answer = await alice.reserve(60, seconds=30, **fields)
    request = pb.GetHoldRequest(
        account_id="alice", hold_id=answer.hold.hold_id, at_least_version=answer.version
    )
    seen = await alice.stub.GetHold(request)
    assert (seen.hold, seen.hold.resource) == (answer.hold, "bafkr6i-object")
    assert seen.version >= answer.version
    captured = await alice.capture(answer.hold, 70)
    assert await alice.get_hold(answer.hold) == captured.hold
    clock.advance(30)
    expired = await alice.get_hold(answer.hold)
    assert (expired.state, expired.captured) == (pb.HOLD_STATE_EXPIRED, 70)
    for hold_id in ("hold-2", "hold-9-00000000", answer.hold.hold_id.upper()):
        with pytest.raises(HoldNotFoundError):
            await alice.get_hold(pb.Hold(hold_id=hold_id))


async def test_open_holds_are_listed_by_their_expiry_in_pages(bob: Account, clock: Clock) -> None:
    await bob.grant(1000)
    made = {}
    for seconds in (50, 10, 40, 20, 30, 60, 70):
        made[seconds] = (await bob.reserve(seconds, seconds=seconds)).hold
    await bob.release(made[40])
    await bob.capture(made[60], 60, final=True)
    clock.advance(10)
    await bob.extend_hold(made[20], seconds=600)
    listed, token = [], ""
    while True:
        page = await bob.stub.ListHolds(
            pb.ListHoldsRequest(account_id="bob", page_size=2, page_token=token)
        )
        assert len(page.holds) <= 2
        assert page.version
        listed += [hold.amount for hold in page.holds]
        token = page.next_page_token
        if not token:
            break
    assert listed == [30, 50, 70, 20]
    assert [hold.amount for hold in await bob.holds()] == listed
    with pytest.raises(StorePageTokenInvalidError):
        await bob.holds(page_token="made-up")


async def test_an_account_has_at_most_so_many_open_holds(
    bob: Account, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "MAX_OPEN_HOLDS", 3)
    await bob.grant(100)
    made = [(await bob.reserve(1, seconds=5 + number)).hold for number in range(3)]
    with pytest.raises(AccountFullError, match="3 open holds") as refused:
        await bob.reserve(1)
    assert refused.value.metadata == {"limit": "3"}
    with pytest.raises(AccountFullError):
        await bob.open_lease(1)
    await bob.release(made[0])
    await bob.reserve(1)
    with pytest.raises(AccountFullError):
        await bob.reserve(1)
    clock.advance(6)
    await bob.reserve(1)
    await audit_account(bob.stub, "bob")
