from __future__ import annotations

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import (
    HoldNotFoundError,
    HoldNotOpenError,
    InsufficientCreditError,
    MeterUnknownError,
)
from services.rpc.errors import InvalidArgumentError
from tests.support.credit_service import Account, Clock, metered
from tests.support.ledger_audit import audit_account


async def _kinds(account: Account) -> list[tuple[str, int]]:
    return [
        (pb.EntryKind.Name(entry.kind).removeprefix("ENTRY_KIND_"), entry.amount)
        for entry in await account.entries()
    ]


async def test_a_hold_sets_credit_aside(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    answer = await alice.reserve(60, seconds=30, resource="bafkr6i-object")
    hold = answer.hold
    assert (answer.balance.available, answer.balance.held) == (40, 60)
    assert (hold.amount, hold.remaining, hold.captured) == (60, 60, 0)
    assert hold.state == pb.HOLD_STATE_OPEN
    assert hold.expiry_policy == pb.EXPIRY_POLICY_RELEASE
    assert hold.expire_time == clock.after(30)
    with pytest.raises(InsufficientCreditError):
        await alice.debit(41)
    with pytest.raises(InsufficientCreditError):
        await alice.reserve(41)
    await audit_account(alice.stub, "alice")


async def test_captures_may_be_partial_and_many(alice: Account) -> None:
    await alice.grant(100)
    hold = (await alice.reserve(60)).hold
    first = await alice.capture(hold, 10)
    assert (first.amount, first.hold.remaining, first.hold.captured) == (10, 50, 10)
    assert first.hold.state == pb.HOLD_STATE_OPEN
    await alice.capture(hold, 0)
    last = await alice.capture(hold, 20, final=True)
    assert (last.hold.remaining, last.hold.captured) == (0, 30)
    assert last.hold.state == pb.HOLD_STATE_CAPTURED
    assert (last.balance.available, last.balance.held, last.balance.spent) == (70, 0, 30)
    assert await _kinds(alice) == [
        ("GRANT", 100),
        ("RESERVE", 60),
        ("CAPTURE", 10),
        ("CAPTURE", 0),
        ("CAPTURE", 20),
        ("RELEASE", 30),
    ]
    await audit_account(alice.stub, "alice")


async def test_what_exceeds_the_hold_is_taken_from_the_balance(alice: Account) -> None:
    await alice.grant(100)
    hold = (await alice.reserve(60)).hold
    answer = await alice.capture(hold, 75, final=True)
    assert (answer.hold.captured, answer.balance.available, answer.balance.held) == (75, 25, 0)
    assert await _kinds(alice) == [("GRANT", 100), ("RESERVE", 60), ("CAPTURE", 75)]
    await audit_account(alice.stub, "alice")


async def test_a_capture_beyond_hold_and_balance_leaves_both_alone(alice: Account) -> None:
    await alice.grant(100)
    hold = (await alice.reserve(60)).hold
    with pytest.raises(InsufficientCreditError) as refused:
        await alice.capture(hold, 101, final=True)
    assert refused.value.metadata == {"currency": "credit", "needed": "41", "available": "40"}
    answer = await alice.capture(hold, 100, final=True)
    assert (answer.balance.available, answer.balance.held, answer.balance.spent) == (0, 0, 100)


async def test_a_release_gives_the_rest_back(alice: Account) -> None:
    await alice.grant(100)
    hold = (await alice.reserve(60)).hold
    await alice.capture(hold, 10)
    answer = await alice.release(hold)
    assert (answer.amount, answer.hold.remaining, answer.hold.captured) == (50, 0, 10)
    assert answer.hold.state == pb.HOLD_STATE_RELEASED
    assert (answer.balance.available, answer.balance.held) == (90, 0)
    await audit_account(alice.stub, "alice")


async def test_a_closed_hold_says_how_it_ended(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    captured = (await alice.reserve(1)).hold
    released = (await alice.reserve(1)).hold
    expired = (await alice.reserve(1, seconds=1)).hold
    await alice.capture(captured, 1, final=True)
    await alice.release(released)
    clock.advance(1)
    for hold, state in ((captured, "CAPTURED"), (released, "RELEASED")):
        with pytest.raises(HoldNotOpenError) as refused:
            await alice.capture(hold, 1)
        assert refused.value.metadata == {"state": state}
    for hold, state in ((captured, "CAPTURED"), (released, "RELEASED"), (expired, "EXPIRED")):
        with pytest.raises(HoldNotOpenError) as refused:
            await alice.release(hold)
        assert refused.value.metadata == {"state": state}
        with pytest.raises(HoldNotOpenError) as refused:
            await alice.extend_hold(hold)
        assert refused.value.metadata == {"state": state}


async def test_a_hold_of_another_account_or_of_nobody_is_not_found(alice: Account) -> None:
    await alice.grant(100)
    await alice.grant(100, account_id="carol")
    hold = (await alice.reserve(1)).hold
    await alice.reserve(1, account_id="carol")
    strangers = [
        hold.hold_id,
        "hold-2",
        "hold-zz-00000000",
        f"{hold.hold_id}0",
        "-" * 64,
        "e\u0301",
    ]
    for hold_id in strangers:
        with pytest.raises(HoldNotFoundError):
            await alice.capture(pb.Hold(hold_id=hold_id), 1, account_id="carol")
        with pytest.raises(HoldNotFoundError):
            await alice.release(pb.Hold(hold_id=hold_id), account_id="carol")


async def test_a_hold_may_be_for_nothing(alice: Account) -> None:
    hold = (await alice.reserve(metered=metered("download", 0))).hold
    answer = await alice.capture(hold, metered=metered("download", 0), final=True)
    assert (answer.amount, answer.hold.state) == (0, pb.HOLD_STATE_CAPTURED)
    await audit_account(alice.stub, "alice")


async def test_metered_holds_are_priced_like_debits(alice: Account) -> None:
    await alice.grant(1000)
    hold = (await alice.reserve(metered=metered("download", 10_000, "MISS"))).hold
    assert hold.amount == 20
    answer = await alice.capture(hold, metered=metered("download", 4_000, "HIT"), final=True)
    assert (answer.amount, answer.balance.available) == (4, 996)
    with pytest.raises(MeterUnknownError):
        await alice.reserve(metered=metered("teleport", 1))
    (line,) = await alice.usage()
    assert (line.quantity, line.amount, line.count) == (4000, 4, 1)
    assert line.cache_result == pb.CACHE_RESULT_HIT


async def test_a_capture_in_another_currency_than_the_hold_is_refused(alice: Account) -> None:
    await alice.grant(10)
    hold = (await alice.reserve(5)).hold
    with pytest.raises(InvalidArgumentError) as refused:
        await alice.capture(hold, metered=metered("parcel", 1))
    assert set(refused.value.violations) == {"metered.meter"}


async def test_released_credit_returns_to_the_grants_that_it_came_from(
    alice: Account, clock: Clock
) -> None:
    soon = (await alice.grant(10, expire_time=clock.after(100))).grant_id
    late = (await alice.grant(10, expire_time=clock.after(200))).grant_id
    await alice.grant(10)
    hold = (await alice.reserve(25)).hold
    await alice.capture(hold, 4)
    await alice.release(hold)
    grants = (await alice.balance()).grants
    assert [grant.remaining for grant in grants] == [6, 10, 10]
    assert [grant.grant_id for grant in grants[:2]] == [soon, late]
    await audit_account(alice.stub, "alice")


async def test_credit_that_is_released_after_its_grant_expired_expires_at_once(
    alice: Account, clock: Clock
) -> None:
    grant = await alice.grant(10, expire_time=clock.after(100))
    await alice.grant(10)
    hold = (await alice.reserve(15, seconds=1000)).hold
    clock.advance(500)
    balance = (await alice.balance()).balance
    assert (balance.available, balance.held, balance.expired) == (5, 15, 0)
    await alice.capture(hold, 4)
    answer = await alice.release(hold)
    assert answer.amount == 11
    assert (answer.balance.available, answer.balance.expired, answer.balance.held) == (10, 6, 0)
    assert (await _kinds(alice))[-2:] == [("RELEASE", 11), ("EXPIRE_GRANT", 6)]
    assert (await alice.entries())[-1].grant_id == grant.grant_id
    await audit_account(alice.stub, "alice")


async def test_a_hold_lives_at_most_seven_days(alice: Account) -> None:
    await alice.reserve(0, seconds=7 * 24 * 3600)
    for seconds in (0, 7 * 24 * 3600 + 1, -1):
        with pytest.raises(InvalidArgumentError):
            await alice.reserve(0, seconds=seconds)
    request = pb.ReserveRequest(request_id="no-time", account_id="alice", amount=0)
    with pytest.raises(InvalidArgumentError):
        await alice.stub.Reserve(request)
