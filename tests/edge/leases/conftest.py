"""What an edge pays with, on a real credit service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub
from tollmesh.credits.v1.leases_pb2_grpc import LeaseServiceStub
from tollmesh.credits.v1.ledger_pb2_grpc import LedgerServiceStub

from services.credits import errors as credits_errors
from services.edge.credit.holds import Usage
from services.edge.credit.lease_books import LeasePayment
from services.edge.credit.till import Till, open_till
from services.rpc.client import connect
from services.rpc.errors import DependencyUnavailableError
from tests.edge.conftest import Tenant, World, until

HIT, MISS = pb.CACHE_RESULT_HIT, pb.CACHE_RESULT_MISS
KIB = 1024
LEASING = {"lease_credits": 100_000, "lease_settle_s": 0.05, "lease_idle_s": 0.3}


@asynccontextmanager
async def till_of(
    world: World, wrap: Callable[[Any], Any] = lambda stub: stub, **changes: object
) -> AsyncIterator[Till]:
    """What an edge pays with, without the edge."""
    settings = world.settings(**LEASING | changes)
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    async with connect(settings.credits_target, errors=credits_errors.ERRORS) as channel:
        till = open_till(settings, CreditServiceStub(channel), wrap(LeaseServiceStub(channel)))
        till.recover()
        yield till
        await till.payments.drain(5.0)


@pytest.fixture
async def till(world: World) -> AsyncIterator[Till]:
    async with till_of(world) as till:
        yield till


def usage_of(tenant: Tenant, quantity: int, result: int = HIT) -> Usage:
    return Usage(tenant.account_id, "download", quantity, "net/cid", result)


async def deliver(
    till: Till, tenant: Tenant, quantity: int, result: int = HIT, sent: int | None = None
) -> bool:
    """A delivery; whether it was paid out of a lease."""
    usage = usage_of(tenant, quantity, result)
    payment = till.payments.take(usage) or await till.payments.reserve(usage)
    payment.deliver(quantity if sent is None else sent)
    payment.settle()
    return isinstance(payment, LeasePayment)


async def leased(till: Till, tenant: Tenant, quantity: int = 10 * KIB) -> int:
    """Delivers until there is a lease; how many bytes of hits."""
    delivered = 0
    for _ in range(2):
        assert not await deliver(till, tenant, quantity)
        delivered += quantity
    await until(lambda: spendable(till, tenant) > 0, "a lease")
    return delivered


def spendable(till: Till, tenant: Tenant) -> int:
    return till.leases.spendable(tenant.account_id, "download")


async def usage(tenant: Tenant) -> dict[int, pb.MeterUsage]:
    """Once all is settled."""
    await tenant.paid()
    request = pb.GetUsageRequest(account_id=tenant.account_id)
    return {line.cache_result: line for line in (await tenant.credits.GetUsage(request)).usage}


def die(till: Till) -> None:
    """What SIGKILL leaves of a process: its journals."""
    for task in (*till.leases._tasks, *till.holds._tasks):
        task.cancel()


async def set_terms(world: World, tenant: Tenant, **terms: object) -> None:
    async with connect(world.credit_service.address, errors=credits_errors.ERRORS) as channel:
        request = ledger_pb2.SetAccountTermsRequest(
            request_id=f"{tenant.account_id}-{len(terms)}",
            account_id=tenant.account_id,
            **cast("Any", terms),
        )
        await cast("Any", LedgerServiceStub(channel)).SetAccountTerms(request)


async def restart(world: World, **download: object) -> None:
    """The credit service, with another price of downloads."""
    await world.credit_service.stop()
    price = {"hit": "1/1024", "miss": "2/1024"}
    world.credit_service.prices = {"download": {**price, **download}}
    await world.credit_service.start()


class Lossy:
    """A lease service of which every first answer is lost, after it has done what was asked."""

    def __init__(self, stub: Any) -> None:  # noqa: ANN401 (the stub has no class at run time)
        self._stub = stub
        self.lost: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._stub, name)

        async def lossy(request: Any, **options: float) -> Any:  # noqa: ANN401 (any message)
            answer = await call(request, **options)
            request_id = getattr(request, "request_id", "")
            if request_id and request_id not in self.lost:
                self.lost.add(request_id)
                raise DependencyUnavailableError
            return answer

        return lossy
