from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import InsufficientCreditError
from services.rpc.errors import RequestIdReusedError
from services.store.port import Operation
from tests.support.credit_service import KEEP_S, Account, Clock, CreditService
from tests.support.ledger_audit import audit_account


async def _mutations(alice: Account) -> list[tuple[Callable[..., Awaitable[Any]], Any]]:
    """One of each, with the id of a hold that they can work on."""
    await alice.grant(1000)
    hold, other = (await alice.reserve(100)).hold, (await alice.reserve(100)).hold
    ids: dict[str, Any] = {"account_id": "alice"}
    second = Duration(seconds=1)
    return [
        (alice.stub.Grant, pb.GrantRequest(request_id="1", amount=5, **ids)),
        (alice.stub.Debit, pb.DebitRequest(request_id="2", amount=5, **ids)),
        (
            alice.stub.Reserve,
            pb.ReserveRequest(request_id="3", amount=5, time_to_live=second, **ids),
        ),
        (
            alice.stub.Capture,
            pb.CaptureRequest(request_id="4", amount=5, hold_id=hold.hold_id, final=True, **ids),
        ),
        (alice.stub.Release, pb.ReleaseRequest(request_id="5", hold_id=other.hold_id, **ids)),
    ]


async def test_a_repeated_mutation_answers_what_the_first_did_and_does_nothing(
    alice: Account,
) -> None:
    for call, request in await _mutations(alice):
        first = await call(request)
        entries = await alice.entries()
        await alice.debit(1)
        again = await call(request)
        assert not first.replayed
        assert again.replayed
        assert int(again.version) >= int(first.version)
        for answer in (first, again):
            answer.ClearField("replayed")
            answer.ClearField("version")
        assert again == first
        assert len(await alice.entries()) == len(entries) + 1
    await audit_account(alice.stub, "alice")


async def test_a_request_id_with_other_content_is_refused(alice: Account) -> None:
    mutations = await _mutations(alice)
    for call, request in mutations:
        await call(request)
    balance = await alice.balance()
    for call, request in mutations:
        other = type(request)()
        other.CopyFrom(request)
        other.account_id = "mallory"
        with pytest.raises(RequestIdReusedError):
            await call(other)
        for id_of_another in {"1", "2", "3", "4", "5"} - {request.request_id}:
            request.request_id = id_of_another
            with pytest.raises(RequestIdReusedError):
                await call(request)
    assert (await alice.balance()).balance == balance.balance


async def test_a_failed_mutation_may_succeed_later_under_its_id(alice: Account) -> None:
    await alice.grant(1)
    request = alice.debit_request(5)
    for _ in range(2):
        with pytest.raises(InsufficientCreditError):
            await alice.stub.Debit(request)
    await alice.grant(4)
    answer = await alice.stub.Debit(request)
    assert (answer.replayed, answer.balance.available) == (False, 0)
    assert (await alice.stub.Debit(request)).replayed


async def test_the_version_of_a_replay_is_good_for_a_read(alice: Account) -> None:
    await alice.grant(10)
    request = alice.debit_request(3)
    await alice.stub.Debit(request)
    replay = await alice.stub.Debit(request)
    read = await alice.balance(at_least_version=replay.version)
    assert read.balance.spent == 3


async def test_duplicates_at_the_same_moment_are_one_debit(alice: Account) -> None:
    await alice.grant(100)
    request = alice.debit_request(7)
    answers = await asyncio.gather(*(alice.stub.Debit(request) for _ in range(30)))
    assert len({answer.entry_id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert (await alice.balance()).balance.spent == 7


async def test_a_request_id_is_known_for_as_long_as_promised_and_then_forgotten(
    service: CreditService, alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    request = alice.debit_request(7)
    await alice.stub.Debit(request)
    clock.advance(KEEP_S - 1)
    await _sweep_requests(service)
    assert (await alice.stub.Debit(request)).replayed
    clock.advance(3)
    assert await _sweep_requests(service) == 2
    assert not (await alice.stub.Debit(request)).replayed


async def _sweep_requests(service: CreditService) -> int:
    now_us = service.clock()
    sweep = Operation(lambda tx: service.requests.sweep(tx, now_us=now_us))
    return (await service.store.commit(sweep)).result
