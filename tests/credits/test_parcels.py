"""Debits that travel together: one operation, yet each with its own outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits import parcels
from services.credits.account import Account as AccountState
from services.credits.debits import Debit, debit
from services.credits.errors import InsufficientCreditError
from services.credits.parcels import GROUPS, OPERATION_BYTES, group_of
from services.credits.records import Answer
from services.credits.tariff import Tariff
from services.rpc.errors import RequestIdReusedError
from services.store.engines.simulated import NO_FAULTS, SimulatedCluster
from services.store.errors import OperationTooLargeError, StoreUnavailableError
from services.store.group_commit import GroupCommit
from services.store.port import Committed, Operation, Store, T
from tests.support.credit_service import Account, Clock, CreditService
from tests.support.ledger_audit import audit_account


class CountingStore:
    """A store that counts operations."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.operations = 0
        self.read = store.read
        self.close = store.close

    async def commit(self, operation: Operation[T]) -> Committed[T]:
        self.operations += 1
        return await self._store.commit(operation)


@pytest.fixture
def cluster() -> SimulatedCluster:
    return SimulatedCluster(0, NO_FAULTS)


@pytest.fixture
async def counting(cluster: SimulatedCluster) -> AsyncIterator[CountingStore]:
    store = CountingStore(GroupCommit(cluster.engine(budget_s=0.2)))
    yield store
    cluster.reachable = True
    await store.close()


@pytest.fixture
def dora(counting: CountingStore, clock: Clock) -> Account:
    return Account(CreditService(counting, clock).direct, "dora")


async def test_debits_that_arrive_together_are_one_operation(
    dora: Account, counting: CountingStore
) -> None:
    await dora.grant(1000)
    before = counting.operations
    answers = await asyncio.gather(*(dora.debit(1) for _ in range(300)))
    assert counting.operations - before <= 3
    assert [answer.balance.available for answer in answers] == list(range(999, 699, -1))
    assert len({answer.entry_id for answer in answers}) == 300
    await audit_account(dora.stub, "dora")


async def test_debits_of_many_accounts_are_a_few_operations(
    dora: Account, counting: CountingStore
) -> None:
    accounts = [Account(dora.stub, f"dora-{number}") for number in range(100)]
    await asyncio.gather(*(account.grant(5) for account in accounts))
    before = counting.operations
    await asyncio.gather(*(account.debit(1) for account in accounts * 3))
    assert counting.operations - before <= 3 * GROUPS
    for account in accounts:
        audit = await audit_account(account.stub, account.account_id)
        assert audit.balance.available == 2


async def test_each_has_its_own_outcome(dora: Account) -> None:
    await dora.grant(10)
    used = dora.debit_request(1)
    await dora.stub.Debit(used)
    other = dora.debit_request(2, request_id=used.request_id)
    twice = dora.debit_request(3)
    calls = [
        dora.stub.Debit(request)
        for request in (dora.debit_request(100), used, other, twice, twice, dora.debit_request(6))
    ]
    refused, replayed, reused, first, again, last = await asyncio.gather(
        *calls, return_exceptions=True
    )
    assert isinstance(refused, InsufficientCreditError)
    assert isinstance(reused, RequestIdReusedError)
    assert isinstance(replayed, pb.DebitResponse)
    assert replayed.replayed
    assert isinstance(first, pb.DebitResponse)
    assert isinstance(again, pb.DebitResponse)
    assert (first.replayed, again.replayed, again.entry_id) == (False, True, first.entry_id)
    assert isinstance(last, pb.DebitResponse)
    assert last.balance.available == 0
    await audit_account(dora.stub, "dora")


@pytest.mark.parametrize("failure", [LookupError("damage"), OperationTooLargeError("too large")])
async def test_one_that_fails_unexpectedly_hurts_no_other(
    dora: Account, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    await dora.grant(100)

    def damaged(account: AccountState, request: Debit, tariff: Tariff) -> Answer:
        answer = debit(account, request, tariff)
        if request.resource == "damaged":
            raise failure
        return answer

    monkeypatch.setattr(parcels, "debit", damaged)
    resources = ["", "damaged", "", "", "damaged", ""]
    outcomes = await asyncio.gather(
        *(dora.debit(1, resource=resource) for resource in resources), return_exceptions=True
    )
    found = [outcome if isinstance(outcome, Exception) else None for outcome in outcomes]
    assert found == [failure if resource else None for resource in resources]
    audit = await audit_account(dora.stub, "dora")
    assert (audit.balance.spent, len(audit.debits)) == (4, 4)


async def test_a_caller_that_gives_up_neither_undoes_its_debit_nor_hurts_others(
    dora: Account,
) -> None:
    await dora.grant(10)
    requests = [dora.debit_request(1) for _ in range(4)]
    calls = [asyncio.ensure_future(dora.stub.Debit(request)) for request in requests]
    await asyncio.sleep(0)
    calls[0].cancel()
    calls[2].cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [
        True,
        False,
        True,
        False,
    ]
    again = await asyncio.gather(*(dora.stub.Debit(request) for request in requests))
    assert all(answer.replayed for answer in again)
    assert (await dora.balance()).balance.spent == 4


async def test_while_the_store_is_out_of_reach_everyone_is_told(
    dora: Account, cluster: SimulatedCluster
) -> None:
    await dora.grant(100)
    cluster.reachable = False
    requests = [dora.debit_request(1) for _ in range(20)]
    outcomes = await asyncio.gather(
        *(dora.stub.Debit(request) for request in requests), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailableError}
    cluster.reachable = True
    await asyncio.gather(*(dora.stub.Debit(request) for request in requests))
    audit = await audit_account(dora.stub, "dora")
    assert (audit.balance.spent, len(audit.debits)) == (20, 20)


async def test_an_account_with_much_that_is_due_delays_only_its_own_debits(
    dora: Account, clock: Clock
) -> None:
    late = Account(dora.stub, _neighbour("dora"))
    for _ in range(900):
        await late.grant(1, expire_time=clock.after(10))
    await late.grant(5)
    await dora.grant(5)
    clock.advance(20)
    ended: list[str] = []

    async def debit_and_note(account: Account) -> None:
        await account.debit(1)
        ended.append(account.account_id)

    await asyncio.gather(debit_and_note(late), debit_and_note(dora), debit_and_note(late))
    assert ended == ["dora", late.account_id, late.account_id]
    audit = await audit_account(late.stub, late.account_id)
    assert (audit.balance.expired, audit.balance.available) == (900, 3)


async def test_what_does_not_fit_travels_in_the_next_one(
    dora: Account, counting: CountingStore
) -> None:
    await dora.grant(1000)
    resource = "r" * 256
    fit = OPERATION_BYTES // (parcels.DEBIT_BYTES + 4 * len(resource))
    before = counting.operations
    calls = [dora.debit(1, resource=resource) for _ in range(2 * fit + 1)]
    answers = await asyncio.gather(*calls)
    assert counting.operations - before == 3
    assert [answer.balance.available for answer in answers] == list(
        range(999, 999 - len(answers), -1)
    )


def _neighbour(account_id: str) -> str:
    """Another account of the same group."""
    names = (f"{account_id}-{number}" for number in range(1000))
    return next(name for name in names if group_of(name) == group_of(account_id))
