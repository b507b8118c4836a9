"""An edge in the test's own process, on real auth and credit services and a given chain."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
from tollmesh.auth.v1 import auth_pb2
from tollmesh.auth.v1.auth_pb2_grpc import AuthServiceStub
from tollmesh.chain.v1.chain_pb2_grpc import ChainServiceStub
from tollmesh.credits.v1 import credits_pb2
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub
from tollmesh.credits.v1.leases_pb2_grpc import LeaseServiceStub
from tollmesh.edge.v1.edge_pb2_grpc import EdgeServiceStub

from services.auth import errors as auth_errors
from services.auth.servicer import Terms
from services.chain import errors as chain_errors
from services.credits import errors as credits_errors
from services.credits.errors import STORE_ERRORS
from services.credits.lease_servicer import LeaseServicer
from services.credits.ledger import Ledger
from services.credits.ledger_servicer import LedgerServicer
from services.credits.servicer import CreditServicer
from services.credits.settings import CreditSettings
from services.edge import admission
from services.edge import errors as edge_errors
from services.edge.credit import lease_calls, ledger
from services.edge.edge import Edge, Services
from services.edge.settings import EdgeSettings
from services.rpc.client import connect
from services.rpc.errors import DependencyUnavailableError
from services.rpc.server import Server
from services.store.open import open_store
from services.store.port import Store
from services.store.requests import RequestRecords
from tests.support.auth_service import AuthClient, Clock, running_auth_service
from tests.support.deadline import DEADLINE_S
from tests.support.fake_chain import NETWORK, FakeChain, running_fake_chain

if TYPE_CHECKING:
    from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceAsyncStub
    from tollmesh.edge.v1.edge_pb2_grpc import EdgeServiceAsyncStub

ALL_ERRORS = (
    *auth_errors.ERRORS,
    *credits_errors.ERRORS,
    *chain_errors.ERRORS,
    *edge_errors.ERRORS,
)
# Decisions outlast every test, so none depends on when the next one is asked for.
TERMS = Terms(cache_us=3_600_000_000, concurrent_requests=100)
ALL_SCOPES = (
    auth_pb2.SCOPE_DOWNLOAD,
    auth_pb2.SCOPE_UPLOAD,
    auth_pb2.SCOPE_PIN,
    auth_pb2.SCOPE_READ,
)


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str = "") -> None:
    """Waits until something holds; fails when it does not within DEADLINE_S."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        result = condition()
        if result if isinstance(result, bool) else await result:
            return
        assert time.monotonic() < deadline, f"never came about: {what or condition}"
        await asyncio.sleep(0.01)


@dataclass
class CreditService:
    """A real credit service that can be stopped and started again on the same address."""

    store: Store
    address: str = "127.0.0.1:0"
    server: Server | None = None
    prices: dict[str, dict[str, object]] = field(default_factory=dict)
    """What differs from the default tariff, from the next start on."""

    async def start(self) -> None:
        requests = RequestRecords("credits", keep_s=86_400)
        settings = CreditSettings.model_validate({"store": "simulated:"})
        changed = {"store": "simulated:", "tariff": {**settings.tariff, **self.prices}}
        tariff = CreditSettings.model_validate(changed).rated_tariff()
        ledger = Ledger(
            self.store, tariff, requests, keep_s=86_400, now_us=lambda: time.time_ns() // 1000
        )
        self.server = Server(
            listen=self.address,
            servicers=[
                CreditServicer(ledger),
                LeaseServicer(ledger),
                LedgerServicer(ledger, self.store),
            ],
            translate=STORE_ERRORS,
            drain_s=0.5,
        )
        await self.server.start()
        self.address = self.server.address

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.drain()
            self.server = None


@dataclass
class Tenant:
    """An account with a key that may do everything but administrate."""

    account_id: str
    key: str
    key_id: str
    credits: CreditServiceAsyncStub

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.key}"),)

    async def balance(self) -> credits_pb2.Balance:
        request = credits_pb2.GetBalanceRequest(account_id=self.account_id)
        # A service that has just come back is connected to a moment later.
        return (await self.credits.GetBalance(request, wait_for_ready=True)).balance

    async def entries(self) -> list[credits_pb2.Entry]:
        entries: list[credits_pb2.Entry] = []
        request = credits_pb2.ListEntriesRequest(account_id=self.account_id, page_size=1000)
        while True:
            page = await self.credits.ListEntries(request)
            entries += page.entries
            if not page.next_page_token:
                return entries
            request.page_token = page.next_page_token

    async def paid(self) -> list[credits_pb2.Entry]:
        """What was captured or debited, in order, once nothing is held any more."""

        async def settled() -> bool:
            try:
                return (await self.balance()).held == 0
            except DependencyUnavailableError:  # it was just started again
                return False

        await until(settled, "all holds settled")
        kinds = {credits_pb2.ENTRY_KIND_CAPTURE, credits_pb2.ENTRY_KIND_DEBIT}
        return [entry for entry in await self.entries() if entry.kind in kinds and entry.amount]

    async def paid_bytes(self) -> list[int]:
        return [entry.metered.quantity for entry in await self.paid()]


@dataclass
class World:
    """Everything around an edge, and edges."""

    directory: Path
    auth: AuthClient
    credit_service: CreditService
    credits: CreditServiceAsyncStub
    chain: FakeChain
    chain_address: str
    auth_address: str
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def tenant(
        self, credit: int = 1_000_000_000, scopes: tuple[Any, ...] = ALL_SCOPES
    ) -> Tenant:
        account_id = await self.auth.account()
        key = await self.auth.key(account_id, *scopes)
        if credit:
            request = credits_pb2.GrantRequest(
                request_id=uuid.uuid4().hex, account_id=account_id, amount=credit
            )
            await self.credits.Grant(request)
        return Tenant(account_id, key.credential, key.api_key.key_id, self.credits)

    def settings(self, **changes: object) -> EdgeSettings:
        facts: dict[str, Any] = {
            "auth_target": self.auth_address,
            "credits_target": self.credit_service.address,
            "chain_target": self.chain_address,
            "default_network": NETWORK,
            "region": "test",
            "cache_dir": self.directory / "edge",
            "drain_s": 5.0,
            "finality_recheck_s": 0.05,
            # Each delivery has an entry of its own in the ledger; tests of leases lease.
            "lease_credits": 0,
        }
        return EdgeSettings.model_validate(facts | changes)

    @asynccontextmanager
    async def edge(self, **changes: object) -> AsyncIterator[RunningEdge]:
        """An edge with these settings, drained at the end."""
        settings = self.settings(**changes)
        async with AsyncExitStack() as stack:
            auth, credits, chain = [
                await stack.enter_async_context(connect(target, errors=errors))
                for target, errors in (
                    (settings.auth_target, auth_errors.ERRORS),
                    (settings.credits_target, credits_errors.ERRORS),
                    (settings.chain_target, chain_errors.ERRORS),
                )
            ]
            services = Services(
                AuthServiceStub(auth),
                CreditServiceStub(credits),
                LeaseServiceStub(credits),
                ChainServiceStub(chain),
            )
            edge = await Edge.open(settings, services)
            await edge.start()
            channel = await stack.enter_async_context(connect(edge.grpc.address, errors=ALL_ERRORS))
            running = RunningEdge(edge, channel)
            try:
                async with running.session:
                    yield running
            finally:
                await running.stop()


class RunningEdge:
    """An edge, and clients of both faces."""

    def __init__(self, edge: Edge, channel: grpc.aio.Channel) -> None:
        self.edge = edge
        self.stub: EdgeServiceAsyncStub = EdgeServiceStub(channel)
        self.url = f"http://{edge.http.address}"
        self.host, _, port = edge.http.address.rpartition(":")
        self.port = int(port)
        self.session = aiohttp.ClientSession(
            self.url, auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)
        )
        self._stopped = False

    async def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            await self.edge.drain()

    async def get(
        self, path: str, tenant: Tenant | None = None, method: str = "GET", **headers: str
    ) -> Answer:
        """One request. Header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        fields = {**(tenant.headers if tenant else {}), **named}
        async with self.session.request(method, path, headers=fields) as response:
            return Answer(response.status, response.headers, await response.read())

    async def cached(self, cid: str) -> None:
        """Waits until an object is whole in the disk tier."""
        await until(lambda: self.edge.disk.info(cid) is not None, "the object is cached")

    async def leased(self, cid: str, tenant: Tenant) -> None:
        """Asks for an object until this edge has a lease of the tenant's credit."""

        async def is_leased() -> bool:
            assert (await self.get(object_path(cid), tenant)).status == 200
            return self.edge.payments.covers_some(tenant.account_id, "download")

        await until(is_leased, "the edge has a lease")

    @property
    def at_once(self) -> int:
        """How many requests were answered at once so far."""
        hits = self.edge.http.hits
        assert hits is not None
        return hits.answered


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Any
    body: bytes

    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document


def object_path(cid: str, network: str = NETWORK) -> str:
    return f"/objects/{network}/{cid}"


def some_bytes(count: int) -> bytes:
    return secrets.token_bytes(count)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services that share this process, and its readers' threads, are slow at times: none hangs."""
    monkeypatch.setattr(admission, "_TIMEOUT_S", DEADLINE_S)
    for module in (ledger, lease_calls):
        monkeypatch.setattr(module, "TIMEOUT_S", DEADLINE_S)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        auth_store = await open_store("simulated:")
        stack.push_async_callback(auth_store.close)
        clock = Clock(time.time_ns() // 1000)
        auth = await stack.enter_async_context(running_auth_service(auth_store, clock, terms=TERMS))
        credit_store = await open_store(f"lmdb://{tmp_path}/credits")
        stack.push_async_callback(credit_store.close)
        credit_service = CreditService(credit_store)
        await credit_service.start()
        stack.push_async_callback(credit_service.stop)
        channel = await stack.enter_async_context(
            connect(credit_service.address, errors=credits_errors.ERRORS)
        )
        chain = FakeChain()
        chain_address = await stack.enter_async_context(running_fake_chain(chain))
        yield World(
            directory=tmp_path,
            auth=auth,
            credit_service=credit_service,
            credits=CreditServiceStub(channel),
            chain=chain,
            chain_address=chain_address,
            auth_address=auth.address,
        )


@pytest.fixture
async def edge(world: World) -> AsyncIterator[RunningEdge]:
    async with world.edge() as edge:
        yield edge


@pytest.fixture
async def tenant(world: World) -> Tenant:
    return await world.tenant()
