"""Balances as they change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import VersionUnknownError
from services.credits.ledger import Ledger
from services.credits.servicer import CreditServicer
from services.credits.tariff import Tariff
from services.credits.watch import Watches
from services.rpc.call import Call
from services.rpc.errors import OverloadedError, ShuttingDownError
from tests.support.credit_service import (
    KEEP_S,
    PRICES,
    Account,
    Clock,
    CreditService,
    Value,
)
from tests.support.deadline import DEADLINE_S

LONG_S = 3600.0
"""A poll that never comes in a test: what is seen was told."""
Stream = AsyncGenerator[pb.WatchBalanceResponse, None]


class Watched:
    """A process with watchers on the store of a service."""

    def __init__(self, service: CreditService, *, poll_s: float = LONG_S, limit: int = 10) -> None:
        self.watches = Watches(limit=limit, poll_s=poll_s)
        tariff = Tariff({meter: price.rates() for meter, price in PRICES.items()})
        self.servicer = CreditServicer(
            Ledger(
                service.store,
                tariff,
                service.requests,
                keep_s=KEEP_S,
                now_us=service.clock,
                watches=self.watches,
            )
        )
        self.bob = Account(cast("Value", _Direct(self.servicer)), "bob")

    def stream(self, *thresholds: int, **fields: Value) -> aclosing[Stream]:
        request = pb.WatchBalanceRequest(account_id="bob", thresholds=thresholds, **fields)
        stream = self.servicer.WatchBalance(request, Call("WatchBalance"))
        return aclosing(cast("Stream", stream))


class _Direct:
    def __init__(self, servicer: CreditServicer) -> None:
        self._servicer = servicer

    def __getattr__(self, name: str) -> Callable[..., Value]:
        method = getattr(self._servicer, name)
        return lambda request: method(request, Call(name))


@pytest.fixture
def watched(memory: CreditService) -> Watched:
    return Watched(memory)


async def _next(stream: Stream) -> pb.WatchBalanceResponse:
    async with asyncio.timeout(DEADLINE_S):
        return await anext(stream)


async def _available(stream: Stream) -> int:
    return (await _next(stream)).balance.available


def _events(message: pb.WatchBalanceResponse) -> list[tuple[int, bool]]:
    return [(event.threshold, event.below) for event in message.events]


async def test_the_first_message_comes_at_once_also_for_what_never_was(watched: Watched) -> None:
    async with watched.stream(10, 0) as stream:
        first = await _next(stream)
    assert first.balance == pb.Balance(account_id="bob", currency="credit")
    assert int(first.version) > 0
    assert _events(first) == [(10, True)]


async def test_each_kind_of_change_is_told(watched: Watched) -> None:
    bob = watched.bob
    async with watched.stream() as stream:
        await _next(stream)
        granted = await bob.grant(100)
        message = await _next(stream)
        assert message.balance == granted.balance
        assert int(message.version) >= int(granted.version)
        await bob.debit(10)
        assert await _available(stream) == 90
        hold = (await bob.reserve(20)).hold
        message = await _next(stream)
        assert (message.balance.available, message.balance.held) == (70, 20)
        await bob.release(hold)
        assert await _available(stream) == 90
        await bob.stub.BatchDebit(
            pb.BatchDebitRequest(debits=[bob.debit_request(1), bob.debit_request(2)])
        )
        assert await _available(stream) == 87
        together = [bob.debit_request(3), bob.debit_request(4)]
        await bob.stub.BatchDebit(pb.BatchDebitRequest(debits=together, all_or_nothing=True))
        assert await _available(stream) == 80


async def test_other_accounts_and_currencies_are_not_told_of(watched: Watched) -> None:
    async with watched.stream() as stream:
        await _next(stream)
        await watched.bob.grant(7, account_id="carol")
        await watched.bob.grant(7, currency="stamp")
        await watched.bob.grant(5)
        assert await _available(stream) == 5


async def test_thresholds_are_told_downwards_and_upwards(watched: Watched) -> None:
    bob = watched.bob
    await bob.grant(100)
    async with watched.stream(50, 20, -5) as stream:
        assert _events(await _next(stream)) == []
        await bob.debit(50)
        assert _events(await _next(stream)) == []
        await bob.debit(1)
        assert _events(await _next(stream)) == [(50, True)]
        await bob.debit(30)
        assert _events(await _next(stream)) == [(20, True)]
        await bob.grant(31)
        assert _events(await _next(stream)) == [(20, False), (50, False)]


async def test_only_crossings_are_told_when_only_they_are_asked_for(watched: Watched) -> None:
    bob = watched.bob
    await bob.grant(100)
    async with watched.stream(50, thresholds_only=True) as stream:
        assert await _available(stream) == 100
        following = asyncio.create_task(_next(stream))
        await bob.debit(10)
        await bob.debit(10)
        await bob.debit(40)
        message = await following
        assert message.balance.available == 40
        assert _events(message) == [(50, True)]


async def test_a_slow_reader_gets_the_last_state_and_what_is_crossed_in_it(
    watched: Watched,
) -> None:
    bob = watched.bob
    await bob.grant(100)
    async with watched.stream(50, 90) as stream:
        await _next(stream)
        for _ in range(60):
            await bob.debit(1)
        await bob.grant(20)
        message = await _next(stream)
        assert message.balance.available == 60
        assert _events(message) == [(90, True)]
        await bob.grant(1)
        assert await _available(stream) == 61


async def test_a_reader_that_goes_away_frees_its_place(watched: Watched) -> None:
    async with watched.stream() as stream:
        await _next(stream)
        waiting = asyncio.create_task(_next(stream))
        await asyncio.sleep(0)
        assert watched.watches.count == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert watched.watches.count == 0
    async with watched.stream() as stream:
        await _next(stream)
    assert watched.watches.count == 0


async def test_more_watchers_than_the_limit_are_refused(memory: CreditService) -> None:
    watched = Watched(memory, limit=2)
    async with watched.stream() as one, watched.stream() as two, watched.stream() as three:
        await _next(one)
        await _next(two)
        with pytest.raises(OverloadedError):
            await _next(three)
        await watched.bob.grant(1)
        assert [await _available(one), await _available(two)] == [1, 1]
    async with watched.stream() as stream:
        assert await _available(stream) == 1


async def test_changes_of_another_process_are_found(memory: CreditService, bob: Account) -> None:
    watched = Watched(memory, poll_s=0.01)
    async with watched.stream(10) as stream:
        await _next(stream)
        await bob.grant(12)
        message = await _next(stream)
        assert message.balance.available == 12
        assert _events(message) == [(10, False)]
        await bob.debit(12)
        assert await _available(stream) == 0


async def test_what_time_does_is_found(memory: CreditService, clock: Clock) -> None:
    watched = Watched(memory, poll_s=0.01)
    await watched.bob.grant(5, expire_time=clock.after(60))
    async with watched.stream(1) as stream:
        assert await _available(stream) == 5
        clock.advance(61)
        message = await _next(stream)
        assert (message.balance.available, message.balance.expired) == (0, 5)
        assert _events(message) == [(1, True)]


async def test_watchers_end_when_the_process_does(watched: Watched) -> None:
    async with watched.stream() as stream, watched.stream() as slow:
        await _next(stream)
        await _next(slow)
        waiting = asyncio.create_task(_next(stream))
        await asyncio.sleep(0)
        watched.watches.close()
        with pytest.raises(ShuttingDownError):
            await waiting
        with pytest.raises(ShuttingDownError):
            await _next(slow)
    async with watched.stream() as late:
        with pytest.raises(ShuttingDownError):
            await _next(late)


async def test_a_version_that_never_was_is_refused(watched: Watched) -> None:
    async with watched.stream(at_least_version="soon") as stream:
        with pytest.raises(VersionUnknownError):
            await _next(stream)


async def test_it_works_over_the_wire(alice: Account, service: CreditService) -> None:
    call = alice.stub.WatchBalance(pb.WatchBalanceRequest(account_id="alice", thresholds=[5]))
    told = aiter(call)
    assert _events(await anext(told)) == [(5, True)]
    await alice.grant(9)
    message = await anext(told)
    assert message.balance.available == 9
    assert _events(message) == [(5, False)]
    call.cancel()
    async with asyncio.timeout(DEADLINE_S):
        while service.ledger.watches.count:  # noqa: ASYNC110 (nothing tells that a call is gone)
            await asyncio.sleep(0.01)
