from __future__ import annotations

import pytest

from services.credits import grants
from services.credits.account import MAX_CURRENCIES
from services.credits.errors import (
    AccountFullError,
    AmountOutOfRangeError,
    InsufficientCreditError,
)
from services.rpc.errors import InvalidArgumentError
from tests.support.credit_service import Account, Clock, Value
from tests.support.ledger_audit import audit_account

MAX = 2**63 - 1


async def test_a_grant_adds_to_what_is_available(alice: Account) -> None:
    answer = await alice.grant(500, resource="invoice 7")
    assert (answer.balance.available, answer.balance.granted) == (500, 500)
    balance = await alice.balance()
    assert balance.balance == answer.balance
    (unspent,) = balance.grants
    assert (unspent.grant_id, unspent.amount, unspent.remaining) == (answer.grant_id, 500, 500)
    assert not unspent.HasField("expire_time")
    (entry,) = await alice.entries()
    assert (entry.grant_id, entry.resource) == (answer.grant_id, "invoice 7")


async def test_an_account_that_was_never_granted_anything_has_zeros(alice: Account) -> None:
    answer = await alice.balance("stamp")
    assert (answer.balance.available, answer.balance.currency) == (0, "stamp")
    assert not answer.grants
    assert not await alice.entries()


async def test_currencies_are_apart(alice: Account) -> None:
    await alice.grant(5, currency="stamp")
    await alice.grant(7)
    with pytest.raises(InsufficientCreditError):
        await alice.debit(6, currency="stamp")
    await alice.debit(6)
    assert (await alice.balance("stamp")).balance.available == 5
    assert (await alice.balance("credit")).balance.available == 1
    await audit_account(alice.stub, alice.account_id)


async def test_what_expires_first_is_spent_first_then_lower_priority_then_older(
    alice: Account, clock: Clock
) -> None:
    kinds: dict[str, dict[str, Value]] = {
        "never, old": {},
        "never, urgent": {"priority": -1},
        "late": {"expire_time": clock.after(200)},
        "soon, last resort": {"expire_time": clock.after(100), "priority": 9},
        "soon, old": {"expire_time": clock.after(100)},
        "soon, young": {"expire_time": clock.after(100)},
        "never, young": {},
    }
    names = {}
    for name, fields in kinds.items():
        clock.advance(0.001)
        names[(await alice.grant(10, **fields)).grant_id] = name
    order = []
    while grants := (await alice.balance()).grants:
        order.append(names[grants[0].grant_id])
        await alice.debit(10)
    assert order == [
        "soon, old",
        "soon, young",
        "soon, last resort",
        "late",
        "never, urgent",
        "never, old",
        "never, young",
    ]


async def test_a_debit_may_use_up_several_grants(alice: Account) -> None:
    for _ in range(5):
        await alice.grant(10)
    await alice.debit(34)
    assert [grant.remaining for grant in (await alice.balance()).grants] == [6, 10]


async def test_an_expired_grant_is_gone_to_the_microsecond(alice: Account, clock: Clock) -> None:
    await alice.grant(10, expire_time=clock.after(60))
    await alice.grant(1)
    clock.advance(59.999_999)
    assert (await alice.balance()).balance.available == 11
    clock.advance(0.000_001)
    answer = await alice.balance()
    assert (answer.balance.available, answer.balance.expired) == (1, 10)
    assert len(answer.grants) == 1
    expiry = (await alice.entries())[-1]
    assert (expiry.amount, expiry.request_id) == (10, "")
    await audit_account(alice.stub, alice.account_id)


async def test_a_debit_does_not_spend_what_has_expired(alice: Account, clock: Clock) -> None:
    await alice.grant(10, expire_time=clock.after(60))
    clock.advance(60)
    with pytest.raises(InsufficientCreditError):
        await alice.debit(1)


async def test_an_expiry_in_the_past_is_refused(alice: Account, clock: Clock) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await alice.grant(10, expire_time=clock.after(0))
    assert set(refused.value.violations) == {"expire_time"}


async def test_a_grant_is_replayed_after_it_has_expired(alice: Account, clock: Clock) -> None:
    again = {"request_id": "g", "expire_time": clock.after(60)}
    first = await alice.grant(10, **again)
    clock.advance(3600)
    replay = await alice.grant(10, **again)
    assert (replay.replayed, replay.grant_id) == (True, first.grant_id)
    assert replay.balance == first.balance


async def test_all_grants_together_stay_within_64_bits(alice: Account) -> None:
    await alice.grant(MAX - 1)
    with pytest.raises(AmountOutOfRangeError):
        await alice.grant(2)
    assert (await alice.grant(1)).balance.available == MAX
    await alice.debit(MAX)
    with pytest.raises(AmountOutOfRangeError):
        await alice.grant(1)
    await audit_account(alice.stub, alice.account_id)


async def test_a_thousand_grants_are_spent_in_order_and_one_more_is_refused(
    bob: Account, clock: Clock
) -> None:
    for number in range(grants.MAX_UNSPENT_GRANTS):
        # Each belongs before all that are there already.
        await bob.grant(1, expire_time=clock.after(100_000 - number))
    with pytest.raises(AccountFullError, match="1000 unspent grants") as refused:
        await bob.grant(1)
    assert refused.value.metadata == {"limit": "1000"}
    await audit_account(bob.stub, bob.account_id)
    first = (await bob.balance()).grants[0]
    hold = (await bob.reserve(700)).hold
    await bob.debit(100)
    assert (await bob.balance()).balance.available == 200
    await bob.release(hold)
    answer = await bob.balance()
    assert (answer.balance.available, answer.grants[0].grant_id) == (900, first.grant_id)
    await audit_account(bob.stub, bob.account_id)
    clock.advance(200_000)
    assert (await bob.balance()).balance.expired == 900
    await audit_account(bob.stub, bob.account_id)


async def test_an_account_has_at_most_so_many_currencies(bob: Account) -> None:
    for number in range(MAX_CURRENCIES):
        await bob.grant(1, currency=f"c{number}")
    with pytest.raises(AccountFullError, match="64 currencies") as refused:
        await bob.grant(1, currency="one-more")
    assert refused.value.metadata == {"limit": "64"}
    await bob.grant(1, currency="c0")
