"""Overdraft limits, and accounts and meters of which nothing is refused."""

from __future__ import annotations

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import AccountFullError, AmountOutOfRangeError, InsufficientCreditError
from services.rpc.errors import InvalidArgumentError, RequestIdReusedError
from tests.support.credit_service import Account, CreditService, metered
from tests.support.ledger_audit import audit_account

MAX = 2**63 - 1


async def test_an_account_has_no_overdraft_unless_it_is_given_one(alice: Account) -> None:
    terms = await alice.terms()
    assert (terms.account_id, terms.currency) == ("alice", "credit")
    assert (terms.overdraft_limit, terms.shadow) == (0, False)
    with pytest.raises(InsufficientCreditError):
        await alice.debit(1)


async def test_debits_go_down_to_the_overdraft_limit_and_no_further(alice: Account) -> None:
    await alice.grant(10)
    await alice.set_terms(overdraft_limit=50)
    answer = await alice.debit(40)
    assert (answer.balance.available, answer.balance.overdraft_limit) == (-30, 50)
    with pytest.raises(InsufficientCreditError) as refused:
        await alice.debit(21)
    assert refused.value.metadata == {"currency": "credit", "needed": "21", "available": "20"}
    assert (await alice.debit(20)).balance.available == -50
    balance = await alice.balance()
    assert (balance.balance.available, balance.balance.spent) == (-50, 60)
    assert not balance.grants
    await audit_account(alice.stub, "alice")


async def test_credit_that_comes_in_pays_what_is_owed_first(alice: Account) -> None:
    await alice.set_terms(overdraft_limit=50)
    await alice.debit(30)
    assert (await alice.grant(20)).balance.available == -10
    grant = await alice.grant(25)
    assert grant.balance.available == 15
    (only,) = (await alice.balance()).grants
    assert (only.grant_id, only.amount, only.remaining) == (grant.grant_id, 25, 15)
    assert (await alice.debit(16)).balance.available == -1
    await audit_account(alice.stub, "alice")


async def test_a_lower_limit_than_what_is_owed_forbids_further_debits(alice: Account) -> None:
    await alice.set_terms(overdraft_limit=50)
    await alice.debit(30)
    await alice.set_terms(overdraft_limit=10)
    with pytest.raises(InsufficientCreditError):
        await alice.debit(1)
    assert (await alice.debit(0)).balance.available == -30
    await alice.grant(31)
    assert (await alice.debit(11)).balance.available == -10


async def test_terms_change_one_by_one_and_are_in_the_ledger(alice: Account) -> None:
    first = await alice.set_terms(overdraft_limit=5, currency="stamp")
    second = await alice.set_terms(shadow=True)
    assert (first.terms.overdraft_limit, first.terms.shadow) == (5, False)
    assert (second.terms.overdraft_limit, second.terms.shadow) == (0, True)
    terms = await alice.terms(currency="stamp")
    assert (terms.overdraft_limit, terms.shadow) == (5, True)
    entries = await alice.entries()
    assert [entry.kind for entry in entries] == [pb.ENTRY_KIND_SET_TERMS] * 2
    assert [entry.resource for entry in entries] == ["overdraft_limit=5", "shadow=true"]
    assert [(entry.amount, entry.currency) for entry in entries] == [(0, "stamp"), (0, "credit")]
    assert (await alice.set_terms(shadow=False)).terms.shadow is False
    await audit_account(alice.stub, "alice")


async def test_a_repeated_change_of_terms_answers_as_the_first(alice: Account) -> None:
    first = await alice.set_terms(overdraft_limit=5, shadow=True, request_id="once")
    await alice.set_terms(overdraft_limit=6, shadow=False)
    again = await alice.set_terms(overdraft_limit=5, shadow=True, request_id="once")
    assert again.replayed
    assert (again.terms, first.replayed) == (first.terms, False)
    assert (await alice.terms()).overdraft_limit == 6
    with pytest.raises(RequestIdReusedError):
        await alice.set_terms(overdraft_limit=5, request_id="once")


@pytest.mark.parametrize("limit", [-1, 2**53 + 1])
async def test_a_limit_out_of_range_is_refused(alice: Account, limit: int) -> None:
    with pytest.raises(InvalidArgumentError):
        await alice.set_terms(overdraft_limit=limit)


async def test_in_shadow_mode_what_is_not_there_is_recorded_and_not_owed(alice: Account) -> None:
    await alice.grant(10)
    await alice.set_terms(shadow=True, overdraft_limit=100)
    answer = await alice.debit(25)
    assert (answer.amount, answer.shortfall, answer.balance.available) == (10, 15, 0)
    entry = (await alice.entries())[-1]
    assert (entry.amount, entry.shortfall) == (10, 15)
    again = await alice.debit(metered=metered("download", 3 * 1024))
    assert (again.amount, again.shortfall) == (0, 6)
    await alice.set_terms(shadow=False, overdraft_limit=0)
    with pytest.raises(InsufficientCreditError):
        await alice.debit(1)
    await audit_account(alice.stub, "alice")


async def test_a_meter_in_shadow_mode_takes_what_there_is(alice: Account) -> None:
    await alice.grant(10)
    answer = await alice.debit(metered=metered("probe", 25))
    assert (answer.amount, answer.shortfall) == (10, 15)
    with pytest.raises(InsufficientCreditError):
        await alice.debit(1)
    repeated = alice.debit_request(metered=metered("probe", 1))
    await alice.stub.Debit(repeated)
    again = await alice.stub.Debit(repeated)
    assert (again.replayed, again.shortfall) == (True, 1)
    await audit_account(alice.stub, "alice")


async def test_overdraft_never_takes_what_was_spent_beyond_64_bits(alice: Account) -> None:
    await alice.grant(MAX)
    await alice.debit(MAX)
    await alice.set_terms(overdraft_limit=10)
    with pytest.raises(AmountOutOfRangeError):
        await alice.debit(1)
    await audit_account(alice.stub, "alice")


async def test_an_account_has_only_so_many_currencies(memory: CreditService, bob: Account) -> None:
    del memory
    for number in range(64):
        await bob.set_terms(overdraft_limit=1, currency=f"c{number}")
    with pytest.raises(AccountFullError):
        await bob.set_terms(overdraft_limit=1, currency="more")
    await bob.set_terms(shadow=True, currency="more")
    assert (await bob.debit(5, currency="more")).shortfall == 5
