"""Streams of debits: in order, bounded, and exact whatever becomes of the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits import streams
from services.credits.debits import Debit
from services.rpc.errors import InvalidArgumentError
from services.store.requests import FINGERPRINT_BYTES
from tests.support.credit_service import Account, CreditService
from tests.support.ledger_audit import audit_account


async def messages(*groups: Sequence[pb.DebitRequest]) -> AsyncIterator[pb.StreamDebitsRequest]:
    for debits in groups:
        yield pb.StreamDebitsRequest(debits=debits)


def found(outcomes: Sequence[pb.DebitOutcome]) -> list[int | str]:
    return [
        outcome.debit.balance.available if outcome.HasField("debit") else outcome.error.reason
        for outcome in outcomes
    ]


async def test_outcomes_come_in_the_order_of_the_debits(alice: Account) -> None:
    await alice.grant(100)
    await alice.grant(5, account_id="carol")
    debits = [
        alice.debit_request(1, account_id="carol" if number % 3 == 0 else "alice")
        for number in range(30)
    ]
    stream = alice.stub.StreamDebits(messages(debits[:1], [], debits[1:12], debits[12:]))
    outcomes = [outcome async for part in stream for outcome in part.outcomes]
    carol = [4, 3, 2, 1, 0, *["INSUFFICIENT_CREDIT"] * 5]
    assert found(outcomes[::3]) == carol
    alices = [outcome for number, outcome in enumerate(outcomes) if number % 3]
    assert found(alices) == list(range(99, 79, -1))
    for account_id in ("alice", "carol"):
        await audit_account(alice.stub, account_id)


async def test_an_outcome_comes_while_the_stream_is_open(alice: Account) -> None:
    await alice.grant(10)
    stream = cast("Any", alice.stub.StreamDebits())
    for expected in (9, 8, 7):
        await stream.write(pb.StreamDebitsRequest(debits=[alice.debit_request(1)]))
        part = await stream.read()
        assert found(part.outcomes) == [expected]
    await stream.done_writing()
    assert [part async for part in stream] == []


async def test_a_stream_of_nothing_ends_cleanly(alice: Account) -> None:
    assert [part async for part in alice.stub.StreamDebits(messages())] == []


async def test_a_malformed_message_ends_the_stream_after_the_outcomes_before(
    alice: Account,
) -> None:
    await alice.grant(10)
    debits = [alice.debit_request(1) for _ in range(4)]
    debits[2].request_id = "not an id"
    stream = alice.stub.StreamDebits(messages(debits[:2], debits[2:3], debits[3:]))
    outcomes: list[pb.DebitOutcome] = []

    async def read() -> None:
        async for part in stream:
            outcomes.extend(part.outcomes)

    with pytest.raises(InvalidArgumentError):
        await read()
    assert found(outcomes) == [9, 8]
    assert (await alice.balance()).balance.available == 8


async def test_a_broken_stream_is_repeated_without_debiting_twice(alice: Account) -> None:
    await alice.grant(10_000)
    groups = [[alice.debit_request(1) for _ in range(20)] for _ in range(50)]
    stream = alice.stub.StreamDebits(messages(*groups))
    seen = 0
    async for part in stream:
        seen += len(part.outcomes)
        if seen >= 100:
            break
    cast("Any", stream).cancel()
    again = alice.stub.StreamDebits(messages(*groups))
    outcomes = [outcome async for part in again for outcome in part.outcomes]
    assert all(outcome.HasField("debit") for outcome in outcomes)
    assert sum(outcome.debit.replayed for outcome in outcomes) >= seen
    audit = await audit_account(alice.stub, "alice")
    assert (audit.balance.spent, len(audit.debits)) == (1000, 1000)


async def test_a_caller_that_takes_no_outcomes_is_not_read_from(
    memory: CreditService, bob: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "WINDOW", 20)
    await bob.grant(1000)
    taken = 0

    async def endless() -> AsyncIterator[Sequence[Debit]]:
        nonlocal taken
        while True:
            taken += 1
            yield [Debit("bob", "", 1, "", f"stream-{taken}", b"f" * FINGERPRINT_BYTES)]

    stream = memory.ledger.debit_stream(endless())
    first = await anext(stream)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(first.debits) + 20 <= taken <= len(first.debits) + 21
    count = len(first.debits)
    while count < 100:
        count += len((await anext(stream)).debits)
    assert taken <= count + 21
    await stream.aclose()
    stopped = taken
    for _ in range(10):
        await asyncio.sleep(0)
    assert taken == stopped
    await audit_account(bob.stub, "bob")


async def test_what_is_under_way_when_a_stream_is_closed_is_done_once(
    memory: CreditService, bob: Account
) -> None:
    await bob.grant(1000)

    async def hundred() -> AsyncIterator[Sequence[Debit]]:
        for number in range(100):
            yield [Debit("bob", "", 1, "", f"stream-{number}", b"f" * FINGERPRINT_BYTES)]
        await asyncio.Event().wait()

    stream = memory.ledger.debit_stream(hundred())
    await anext(stream)
    await stream.aclose()
    repeated = memory.ledger.debit_stream(_first(hundred(), 100))
    done = 0
    async for part in repeated:
        done += len(part.outcomes)
    assert done == 100
    assert (await bob.balance()).balance.spent == 100


async def _first(
    debits: AsyncIterator[Sequence[Debit]], count: int
) -> AsyncIterator[Sequence[Debit]]:
    async for part in debits:
        yield part
        count -= 1
        if not count:
            return
