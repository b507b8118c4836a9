"""Batches that are done as a whole or not at all."""

from __future__ import annotations

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.rpc.errors import InvalidArgumentError
from tests.support.credit_service import Account, Clock, CreditService, metered
from tests.support.ledger_audit import audit_account


async def together(account: Account, *debits: pb.DebitRequest) -> list[str | int]:
    """What became of each debit: the balance after it, or why not."""
    request = pb.BatchDebitRequest(debits=debits, all_or_nothing=True)
    return [
        outcome.debit.balance.available if outcome.HasField("debit") else outcome.error.reason
        for outcome in (await account.stub.BatchDebit(request)).outcomes
    ]


async def test_all_are_done_whichever_accounts_they_touch(alice: Account) -> None:
    await alice.grant(10)
    await alice.grant(10, account_id="carol")
    debits = [
        alice.debit_request(1),
        alice.debit_request(2, account_id="carol"),
        alice.debit_request(3),
    ]
    assert await together(alice, *debits) == [9, 8, 6]
    request = pb.BatchDebitRequest(debits=debits, all_or_nothing=True)
    again = (await alice.stub.BatchDebit(request)).outcomes
    assert all(outcome.debit.replayed for outcome in again)
    assert len({outcome.debit.version for outcome in again}) == 1
    for account_id in ("alice", "carol"):
        await audit_account(alice.stub, account_id)


async def test_one_that_is_refused_has_the_others_undone(alice: Account) -> None:
    await alice.grant(10)
    await alice.grant(10, account_id="carol")
    debits = [
        alice.debit_request(4, account_id="carol"),
        alice.debit_request(11),
        alice.debit_request(4),
        alice.debit_request(metered=metered("teleport", 1)),
    ]
    aborted = await together(alice, *debits)
    assert aborted == ["BATCH_ABORTED", "INSUFFICIENT_CREDIT", "BATCH_ABORTED", "METER_UNKNOWN"]
    for account_id in ("alice", "carol"):
        audit = await audit_account(alice.stub, account_id)
        assert (audit.balance.available, len(audit.entries)) == (10, 1)
    # Nothing was recorded: the same requests may succeed later.
    await alice.grant(10)
    assert await together(alice, *debits[:3]) == [6, 9, 5]


async def test_together_they_must_not_exceed_the_balance(alice: Account) -> None:
    await alice.grant(10)
    debits = [alice.debit_request(6), alice.debit_request(5), alice.debit_request(1)]
    assert await together(alice, *debits) == [
        "BATCH_ABORTED",
        "INSUFFICIENT_CREDIT",
        "BATCH_ABORTED",
    ]
    assert await together(alice, debits[0], debits[2]) == [4, 3]


async def test_what_was_done_before_stays_done_when_the_rest_is_aborted(alice: Account) -> None:
    await alice.grant(10)
    done = alice.debit_request(3)
    first = await alice.stub.Debit(done)
    batch = [done, alice.debit_request(8), alice.debit_request(1)]
    assert await together(alice, *batch) == [7, "INSUFFICIENT_CREDIT", "BATCH_ABORTED"]
    request = pb.BatchDebitRequest(debits=batch, all_or_nothing=True)
    replayed = (await alice.stub.BatchDebit(request)).outcomes[0].debit
    assert (replayed.entry_id, replayed.replayed) == (first.entry_id, True)
    assert int(replayed.version) >= int(first.version)


async def test_what_stands_in_it_twice_is_aborted_twice(alice: Account) -> None:
    await alice.grant(10)
    twice = alice.debit_request(3)
    batch = [twice, alice.debit_request(8), twice]
    aborted = ["BATCH_ABORTED", "INSUFFICIENT_CREDIT", "BATCH_ABORTED"]
    assert await together(alice, *batch) == aborted
    assert (await alice.balance()).balance.available == 10


async def test_an_aborted_debit_says_what_debit_would(alice: Account) -> None:
    request = pb.BatchDebitRequest(
        debits=[alice.debit_request(1), alice.debit_request(0)], all_or_nothing=True
    )
    refused, aborted = (await alice.stub.BatchDebit(request)).outcomes
    assert dict(refused.error.metadata)["needed"] == "1"
    assert (aborted.error.code, aborted.error.reason) == (10, "BATCH_ABORTED")


async def test_more_than_one_transaction_takes_is_refused_with_the_limit(
    memory: CreditService, bob: Account
) -> None:
    del memory
    debits = [
        bob.debit_request(
            0,
            account_id=f"{number:064}",
            request_id=f"{number:064}",
            resource="\U0001f4e6" * 256,
        )
        for number in range(1000)
    ]
    request = pb.BatchDebitRequest(debits=debits, all_or_nothing=True)
    with pytest.raises(InvalidArgumentError, match="1,000,000 bytes"):
        await bob.stub.BatchDebit(request)
    assert not await bob.entries()


async def test_the_largest_plain_batch_fits(memory: CreditService, bob: Account) -> None:
    del memory
    await bob.grant(1000)
    debits = [bob.debit_request(1) for _ in range(1000)]
    assert await together(bob, *debits) == list(range(999, -1, -1))


async def test_accounts_with_much_that_is_due_are_settled_first(
    memory: CreditService, bob: Account, clock: Clock
) -> None:
    accounts = [Account(memory.direct, f"bob-{number}") for number in range(2)]
    for account in accounts:
        for _ in range(500):
            await account.grant(1, expire_time=clock.after(10))
        await account.grant(10)
    clock.advance(20)
    debits = [account.debit_request(10) for account in accounts]
    assert await together(bob, *debits) == [0, 0]
    for account in accounts:
        audit = await audit_account(account.stub, account.account_id)
        assert audit.balance.expired == 500
