from __future__ import annotations

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits import parcels
from services.credits.errors import (
    AmountOutOfRangeError,
    InsufficientCreditError,
    MeterUnknownError,
)
from services.rpc.errors import InvalidArgumentError
from tests.support.credit_service import Account, Clock, CreditService, metered
from tests.support.ledger_audit import audit_account

MAX = 2**63 - 1


async def test_a_debit_moves_available_to_spent(alice: Account) -> None:
    await alice.grant(100)
    answer = await alice.debit(30, resource="bafkr6i-object")
    assert answer.amount == 30
    assert (answer.balance.available, answer.balance.spent) == (70, 30)
    entry = (await alice.entries())[-1]
    assert entry.entry_id == answer.entry_id
    assert (entry.kind, entry.amount, entry.available_after) == (pb.ENTRY_KIND_DEBIT, 30, 70)
    assert (entry.resource, entry.currency) == ("bafkr6i-object", "credit")


async def test_a_metered_debit_costs_what_the_tariff_says_rounded_up(alice: Account) -> None:
    await alice.grant(1000)
    costs = [
        (metered("download", 1024, "HIT"), 1),
        (metered("download", 1025, "HIT"), 2),
        (metered("download", 1025, "MISS"), 3),
        (metered("download", 1025), 3),
        (metered("download", 0, "MISS"), 0),
        (metered("upload", 1), 1),
        (metered("free", 1 << 40), 0),
    ]
    for quantity, cost in costs:
        assert (await alice.debit(metered=quantity)).amount == cost
    entries = [entry for entry in await alice.entries() if entry.HasField("metered")]
    assert [(entry.metered, entry.amount) for entry in entries] == costs
    await audit_account(alice.stub, alice.account_id)


async def test_a_meter_is_debited_in_its_own_currency(alice: Account) -> None:
    await alice.grant(10, currency="stamp")
    answer = await alice.debit(metered=metered("parcel", 2))
    assert (answer.amount, answer.balance.currency, answer.balance.available) == (6, "stamp", 4)
    with pytest.raises(InvalidArgumentError) as refused:
        await alice.debit(metered=metered("parcel", 1), currency="credit")
    assert set(refused.value.violations) == {"metered.meter"}


async def test_more_than_there_is_is_refused_and_takes_nothing(alice: Account) -> None:
    await alice.grant(10)
    with pytest.raises(InsufficientCreditError) as refused:
        await alice.debit(11)
    assert refused.value.metadata == {"currency": "credit", "needed": "11", "available": "10"}
    assert refused.value.quota_subject == "account:alice"
    assert (await alice.balance()).balance.available == 10
    assert len(await alice.entries()) == 1
    assert (await alice.debit(10)).balance.available == 0


async def test_nothing_can_be_debited_from_an_account_without_credit(alice: Account) -> None:
    assert (await alice.debit(0)).balance.granted == 0
    with pytest.raises(InsufficientCreditError):
        await alice.debit(1)
    await audit_account(alice.stub, alice.account_id)


async def test_a_meter_without_a_price_is_refused(alice: Account) -> None:
    with pytest.raises(MeterUnknownError) as refused:
        await alice.debit(metered=metered("teleport", 1))
    assert refused.value.metadata == {"meter": "teleport"}


async def test_a_price_beyond_64_bits_is_refused(alice: Account) -> None:
    with pytest.raises(AmountOutOfRangeError):
        await alice.debit(metered=metered("dear", 2))


async def test_a_days_usage_beyond_64_bits_is_refused_and_takes_nothing(
    alice: Account, clock: Clock
) -> None:
    await alice.debit(metered=metered("free", MAX))
    with pytest.raises(AmountOutOfRangeError):
        await alice.debit(metered=metered("free", 1))
    clock.advance(24 * 3600)
    await alice.debit(metered=metered("free", 5))
    with pytest.raises(AmountOutOfRangeError, match="ask for less time"):
        await alice.usage()
    (today,) = await alice.usage(start_time=clock.after(0))
    assert today.quantity == 5


@pytest.mark.parametrize(
    "fields",
    [
        {"request_id": ""},
        {"request_id": "with space"},
        {"account_id": ""},
        {"account_id": "a" * 65},
        {"amount": -1},
        {"currency": "Credit"},
        {"amount": None},
        {"metered": metered("Download", 1)},
        {"metered": metered("download", -1)},
        {"resource": "r" * 257},
    ],
)
async def test_what_breaks_the_contract_is_refused(
    alice: Account, fields: dict[str, object]
) -> None:
    request = alice.debit_request(1)
    for name, value in fields.items():
        request.ClearField(name)  # type: ignore[arg-type]  # a parametrised name
        if isinstance(value, pb.MeteredQuantity):
            request.metered.CopyFrom(value)
        elif value is not None:
            setattr(request, name, value)
    with pytest.raises(InvalidArgumentError) as refused:
        await alice.stub.Debit(request)
    assert refused.value.violations


async def test_a_batch_gives_each_debit_its_own_outcome_in_order(alice: Account) -> None:
    await alice.grant(10)
    await alice.grant(100, account_id="carol")
    reused = (await alice.entries())[0].request_id
    debits = [
        alice.debit_request(6),
        alice.debit_request(50, account_id="carol"),
        alice.debit_request(6),
        alice.debit_request(metered=metered("teleport", 1)),
        alice.debit_request(4),
        alice.debit_request(1, request_id=reused),
    ]
    debits.append(debits[0])
    response = await alice.stub.BatchDebit(pb.BatchDebitRequest(debits=debits))
    found = [
        outcome.debit.balance.available if outcome.HasField("debit") else outcome.error.reason
        for outcome in response.outcomes
    ]
    refused = ("INSUFFICIENT_CREDIT", "METER_UNKNOWN", "REQUEST_ID_REUSED")
    assert found == [4, 50, refused[0], refused[1], 0, refused[2], 4]
    assert [outcome.debit.replayed for outcome in response.outcomes] == [False] * 6 + [True]
    missing = response.outcomes[2].error
    assert dict(missing.metadata) == {"currency": "credit", "needed": "6", "available": "4"}
    assert missing.code == 9  # FAILED_PRECONDITION
    assert missing.message
    await audit_account(alice.stub, "alice")
    await audit_account(alice.stub, "carol")


async def test_a_batch_and_a_debit_with_the_same_request_id_are_one(alice: Account) -> None:
    await alice.grant(10)
    request = alice.debit_request(3)
    first = await alice.stub.Debit(request)
    batch = pb.BatchDebitRequest(debits=[request, alice.debit_request(1)])
    for replayed in (False, True):
        response = await alice.stub.BatchDebit(batch)
        assert response.outcomes[0].debit.entry_id == first.entry_id
        assert response.outcomes[1].debit.replayed is replayed
    assert (await alice.balance()).balance.spent == 4


async def test_the_largest_batch_with_the_longest_names_is_taken(bob: Account) -> None:
    account_id = "a" * 64
    await bob.grant(10_000, account_id=account_id)
    debits = [
        bob.debit_request(
            account_id=account_id,
            request_id=f"{number:064}",
            resource="\U0001f4e6" * 256,  # four bytes each
            metered=metered("download", 1024),
        )
        for number in range(1000)
    ]
    assert 1000 * len(debits) > parcels.OPERATION_BYTES  # it takes more than one
    response = await bob.stub.BatchDebit(pb.BatchDebitRequest(debits=debits))
    available = [outcome.debit.balance.available for outcome in response.outcomes]
    assert available == list(range(9998, 7998, -2))
    await audit_account(bob.stub, account_id)


async def test_a_batch_of_many_accounts_is_one_call(memory: CreditService) -> None:
    stub = memory.direct
    accounts = [Account(stub, f"account-{number}") for number in range(300)]
    for account in accounts:
        await account.grant(1)
    request = pb.BatchDebitRequest(debits=[account.debit_request(1) for account in accounts * 2])
    outcomes = (await stub.BatchDebit(request)).outcomes
    assert all(outcome.HasField("debit") for outcome in outcomes[:300])
    assert {outcome.error.reason for outcome in outcomes[300:]} == {"INSUFFICIENT_CREDIT"}
