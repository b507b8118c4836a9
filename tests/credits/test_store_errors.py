from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits import parcels
from services.rpc.errors import (
    InternalError,
    OverloadedError,
    ShuttingDownError,
    StoreUnavailableError,
)
from services.store.engines.simulated import NO_FAULTS, SimulatedCluster
from services.store.group_commit import GroupCommit, Limits
from tests.support.credit_service import Account, Clock, CreditService
from tests.support.ledger_audit import audit_account


@pytest.fixture
def cluster() -> SimulatedCluster:
    return SimulatedCluster(0, NO_FAULTS)


@pytest.fixture
async def carol(cluster: SimulatedCluster, clock: Clock) -> AsyncIterator[Account]:
    """An account over the wire, on a cluster that can be cut off."""
    store = GroupCommit(cluster.engine(budget_s=0.2), Limits(waiting_operations=4))
    async with CreditService(store, clock).served() as stub:
        yield Account(stub, "carol")
    cluster.reachable = True
    await store.close()


async def test_a_store_out_of_reach_is_unavailable_and_the_same_request_succeeds_later(
    carol: Account, cluster: SimulatedCluster
) -> None:
    await carol.grant(10)
    request = carol.debit_request(3)
    cluster.reachable = False
    with pytest.raises(StoreUnavailableError) as refused:
        await carol.stub.Debit(request)
    assert refused.value.retry_after_s
    with pytest.raises(StoreUnavailableError):
        await carol.stub.BatchDebit(pb.BatchDebitRequest(debits=[request]))
    with pytest.raises(StoreUnavailableError):
        await carol.balance()
    cluster.reachable = True
    await carol.stub.Debit(request)
    assert (await carol.stub.Debit(request)).replayed
    audit = await audit_account(carol.stub, "carol")
    assert audit.balance.spent == 3


async def test_more_than_the_service_takes_on_is_refused_at_once(
    carol: Account, cluster: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await carol.grant(100)
    monkeypatch.setattr(parcels, "MAX_WAITING", 8)
    cluster.reachable = False
    debits = [asyncio.create_task(carol.debit(1)) for _ in range(12)]
    done, _ = await asyncio.wait(debits, return_when=asyncio.FIRST_COMPLETED)
    assert {type(task.exception()) for task in done} == {OverloadedError}
    cluster.reachable = True
    await asyncio.gather(*debits, return_exceptions=True)
    await audit_account(carol.stub, "carol")


async def test_a_closed_store_means_that_the_process_shuts_down(
    service: CreditService, alice: Account
) -> None:
    await service.store.close()
    with pytest.raises(ShuttingDownError):
        await alice.debit(1)


async def test_damage_is_an_internal_error_that_says_nothing(
    service: CreditService, alice: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    await alice.grant(1)

    def damaged(*_: object, **__: object) -> asyncio.Future[None]:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        failed.set_exception(LookupError("hold 17 of alice is gone"))
        return failed

    monkeypatch.setattr(service.ledger, "debit", damaged)
    with pytest.raises(InternalError) as refused:
        await alice.debit(1)
    assert "17" not in str(refused.value)
    assert set(refused.value.metadata) == {"incident_id"}
