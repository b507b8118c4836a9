"""Units that are free of charge in each period, and prices that have a minimum.

The meter ``scan`` has 1,000 free units a day, then costs a tenth each, and 5 at least.
"""

from __future__ import annotations

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import InsufficientCreditError
from tests.support.credit_service import DAY_S, Account, Clock, metered
from tests.support.ledger_audit import audit_account


async def test_what_the_allowance_covers_costs_nothing(alice: Account) -> None:
    answer = await alice.debit(metered=metered("scan", 1000))
    assert (answer.amount, answer.balance.available) == (0, 0)
    entry = (await alice.entries())[-1]
    assert (entry.amount, entry.free_quantity, entry.metered.quantity) == (0, 1000, 1000)
    with pytest.raises(InsufficientCreditError):
        await alice.debit(metered=metered("scan", 1))
    await audit_account(alice.stub, "alice")


async def test_beyond_it_the_price_is_at_least_the_minimum(alice: Account) -> None:
    await alice.grant(1000)
    costs = [(900, 0, 900), (101, 5, 100), (1, 5, 0), (0, 0, 0), (51, 6, 0), (500, 50, 0)]
    for quantity, cost, free in costs:
        assert (await alice.debit(metered=metered("scan", quantity))).amount == cost
        assert (await alice.entries())[-1].free_quantity == free
    await audit_account(alice.stub, "alice")


async def test_the_allowance_begins_anew_each_period(alice: Account, clock: Clock) -> None:
    await alice.debit(metered=metered("scan", 1000))
    clock.advance(DAY_S)
    assert (await alice.debit(metered=metered("scan", 1000))).amount == 0


async def test_each_account_has_its_own_allowance_in_a_batch_too(alice: Account) -> None:
    await alice.grant(5)
    debits = [
        alice.debit_request(metered=metered("scan", 600)),
        alice.debit_request(metered=metered("scan", 600), account_id="carol"),
        alice.debit_request(metered=metered("scan", 400)),
        alice.debit_request(metered=metered("scan", 1)),
        alice.debit_request(metered=metered("scan", 401), account_id="carol"),
    ]
    response = await alice.stub.BatchDebit(pb.BatchDebitRequest(debits=debits))
    found = [
        outcome.debit.amount if outcome.HasField("debit") else outcome.error.reason
        for outcome in response.outcomes
    ]
    assert found == [0, 0, 0, 5, "INSUFFICIENT_CREDIT"]
    # What was refused used nothing up.
    assert (await alice.debit(metered=metered("scan", 400), account_id="carol")).amount == 0


async def test_a_repeated_debit_uses_nothing_up(alice: Account) -> None:
    request = alice.debit_request(metered=metered("scan", 600))
    await alice.stub.Debit(request)
    await alice.stub.Debit(request)
    assert (await alice.debit(metered=metered("scan", 400))).amount == 0


async def test_a_reservation_looks_at_the_allowance_and_a_capture_uses_it(alice: Account) -> None:
    await alice.grant(100)
    first = (await alice.reserve(metered=metered("scan", 1000))).hold
    second = (await alice.reserve(metered=metered("scan", 1100))).hold
    assert (first.amount, second.amount) == (0, 10)
    assert (await alice.capture(first, metered=metered("scan", 900), final=True)).amount == 0
    captured = await alice.capture(second, metered=metered("scan", 300), final=True)
    assert captured.amount == 20
    assert (await alice.entries())[-1].free_quantity == 100
    await audit_account(alice.stub, "alice")
