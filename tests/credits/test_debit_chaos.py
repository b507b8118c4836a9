"""Debits in every way at once, by two services on one cluster that fails in every way."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import InsufficientCreditError
from services.store.engines.simulated import SimulatedCluster
from services.store.errors import StoreOverloadedError, StoreUnavailableError
from services.store.group_commit import GroupCommit
from services.store.port import T
from tests.support.credit_service import Account, Clock, CreditService, metered
from tests.support.ledger_audit import audit_account
from tests.support.seeds import chosen_seed

if TYPE_CHECKING:
    from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceAsyncStub

ACCOUNTS = ("alice", "bob", "carol", "dave")
CLIENTS, CALLS = 8, 25


class Chaos:
    """Clients, and what they were told."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.clock = Clock()
        self.numbers = itertools.count()
        cluster = SimulatedCluster(seed)
        self.stores = [GroupCommit(cluster.engine()) for _ in range(2)]
        self.services = [CreditService(store, self.clock) for store in self.stores]
        self.done: dict[str, pb.DebitResponse] = {}
        self.together: list[pb.BatchDebitRequest] = []
        self.asked: list[pb.DebitRequest] = []

    async def prepare(self) -> None:
        for name in ACCOUNTS:
            account = Account(self.services[0].direct, name)
            for seconds in (20, 40, 1000):
                ends = self.clock.after(seconds)
                await retried(
                    partial(account.grant, 400, expire_time=ends, request_id=f"{name}-{seconds}")
                )
        bob, carol = (Account(self.services[0].direct, name) for name in ("bob", "carol"))
        await retried(partial(bob.set_terms, overdraft_limit=200, request_id="terms-bob"))
        await retried(partial(carol.set_terms, shadow=True, request_id="terms-carol"))

    async def client(self) -> None:
        ways = [self.unary, self.unary, self.batch, self.all_or_nothing, self.stream, self.again]
        for _ in range(CALLS):
            self.clock.advance(self.dice.random() / 4)
            await self.dice.choice(ways)()

    async def unary(self) -> None:
        request = self.debit()
        answer = await refusable(retried(lambda: self.stub().Debit(request)))
        if answer is not None:
            self.note(request, answer)

    async def again(self) -> None:
        if self.asked:
            request = self.dice.choice(self.asked)
            answers = await asyncio.gather(
                *(refusable(retried(lambda: self.stub().Debit(request))) for _ in range(2))
            )
            for answer in answers:
                if answer is not None:
                    self.note(request, answer)

    async def batch(self) -> None:
        debits = [self.debit() for _ in range(self.dice.randrange(1, 12))]
        debits += self.dice.sample(debits, 1)
        request = pb.BatchDebitRequest(debits=debits)
        response = await retried(lambda: self.stub().BatchDebit(request))
        self.note_all(debits, response.outcomes)

    async def all_or_nothing(self) -> None:
        debits = [self.debit() for _ in range(self.dice.randrange(1, 5))]
        for debit in debits:
            self.asked.remove(debit)  # not asked for alone
        request = pb.BatchDebitRequest(debits=debits, all_or_nothing=True)
        self.together.append(request)
        response = await retried(lambda: self.stub().BatchDebit(request))
        assert len({outcome.HasField("debit") for outcome in response.outcomes}) == 1
        self.note_all(debits, response.outcomes)

    async def stream(self) -> None:
        groups = [[self.debit() for _ in range(self.dice.randrange(4))] for _ in range(6)]
        debits = [debit for group in groups for debit in group]
        patience = self.dice.choice([1, 3, 100])

        async def messages() -> AsyncIterator[pb.StreamDebitsRequest]:
            for group in groups:
                await asyncio.sleep(0)
                yield pb.StreamDebitsRequest(debits=group)

        outcomes: list[pb.DebitOutcome] = []
        parts = self.stub().StreamDebits(messages())
        try:
            async for part in parts:
                outcomes.extend(part.outcomes)
                if len(outcomes) > patience:
                    break
        except (StoreUnavailableError, StoreOverloadedError):
            pass
        await cast("AsyncGenerator[pb.StreamDebitsResponse, None]", parts).aclose()
        self.note_all(debits[: len(outcomes)], outcomes)

    def note_all(
        self, debits: Sequence[pb.DebitRequest], outcomes: Sequence[pb.DebitOutcome]
    ) -> None:
        for debit, outcome in zip(debits, outcomes, strict=True):
            if outcome.HasField("debit"):
                self.note(debit, outcome.debit)

    def note(self, request: pb.DebitRequest, answer: pb.DebitResponse) -> None:
        first = self.done.setdefault(request.request_id, answer)
        assert (first.entry_id, first.amount, first.balance) == (
            answer.entry_id,
            answer.amount,
            answer.balance,
        )

    def debit(self) -> pb.DebitRequest:
        request = pb.DebitRequest(
            request_id=f"debit-{next(self.numbers)}", account_id=self.dice.choice(ACCOUNTS)
        )
        if self.dice.random() < 0.3:
            meter = self.dice.choice(["download", "scan", "probe"])
            request.metered.CopyFrom(metered(meter, self.dice.randrange(2000)))
        else:
            request.amount = self.dice.randrange(12)
        self.asked.append(request)
        return request

    def stub(self) -> CreditServiceAsyncStub:
        return self.dice.choice(self.services).direct


async def retried(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except (StoreUnavailableError, StoreOverloadedError):
            await asyncio.sleep(0)


async def refusable(call: Awaitable[T]) -> T | None:
    try:
        return await call
    except InsufficientCreditError:
        return None


@pytest.mark.parametrize("attempt", range(3))
async def test_whatever_happens_each_debit_is_done_once_and_batches_whole(attempt: int) -> None:
    seed = chosen_seed() + attempt
    chaos = Chaos(seed)
    await chaos.prepare()
    await asyncio.gather(*(chaos.client() for _ in range(CLIENTS)))
    assert len(chaos.done) > CLIENTS * CALLS / 2
    moved: set[str] = set()
    for name in ACCOUNTS:
        audit = await audit_account(chaos.services[0].direct, name)
        requests = [entry.request_id for entry in audit.debits]
        assert len(requests) == len(set(requests))
        moved.update(requests)
    assert set(chaos.done) <= moved
    for batch in chaos.together:
        assert len({debit.request_id in moved for debit in batch.debits}) == 1
    for store in chaos.stores:
        await store.close()
