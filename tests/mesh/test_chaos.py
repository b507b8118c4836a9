"""The credit service is killed again and again under load; the ledger accounts for every debit."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub
from tollmesh.credits.v1.ledger_pb2_grpc import LedgerServiceStub

from services.cli.mesh.processes import Child, free_port, start, stop
from tests.support.ledger_audit import audit_account

if TYPE_CHECKING:
    from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceAsyncStub

ACCOUNTS = ("acc_hot", "acc_other")
CLIENTS = 16
GRANT = 10_000_000
RETRYABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
CHANNEL = (("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 100))


@dataclass
class Service:
    """The credit service as a process that can be killed and started again on its data."""

    directory: Path
    address: str
    child: Child | None = None

    async def start(self) -> None:
        environment = {
            "TOLLMESH_CREDITS_LISTEN": self.address,
            "TOLLMESH_CREDITS_STORE": f"lmdb://{self.directory}",
        }
        command = [sys.executable, "-m", "services.credits"]
        self.child = start("credits", command, self.directory.parent, environment)
        await self.child.listening(self.address)

    async def kill(self) -> None:
        assert self.child is not None
        self.child.signal(signal.SIGKILL)
        assert await self.child.ended() == -signal.SIGKILL, "it had ended by itself before"


@dataclass
class Record:
    """What the clients were told."""

    acknowledged: dict[str, pb.DebitResponse] = field(default_factory=dict)
    retried: int = 0
    repeated: int = 0
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    def acknowledge(self, answer: pb.DebitResponse, request_id: str) -> None:
        self.acknowledged[request_id] = answer
        self.grown.set()

    async def more(self, count: int) -> None:
        """Waits until ``count`` more debits are acknowledged."""
        wanted = len(self.acknowledged) + count
        while len(self.acknowledged) < wanted:
            self.grown.clear()
            await self.grown.wait()


@asynccontextmanager
async def _stub(address: str) -> AsyncIterator[CreditServiceAsyncStub]:
    async with grpc.aio.insecure_channel(address, options=CHANNEL) as channel:
        yield CreditServiceStub(channel)


async def _debit(
    stub: CreditServiceAsyncStub, request: pb.DebitRequest, seen: Record
) -> pb.DebitResponse:
    while True:
        try:
            answer = await stub.Debit(request, timeout=10, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() not in RETRYABLE:
                raise
            seen.retried += 1
        else:
            assert isinstance(answer, pb.DebitResponse)
            return answer


async def _client(
    number: int, address: str, rng: random.Random, seen: Record, end: asyncio.Event
) -> None:
    async with _stub(address) as stub:
        count = 0
        while not end.is_set():
            request = pb.DebitRequest(
                request_id=f"chaos-{number}-{count}",
                account_id=rng.choice(ACCOUNTS),
                amount=rng.randint(1, 9),
            )
            count += 1
            answer = await _debit(stub, request, seen)
            assert answer.amount == request.amount
            seen.acknowledge(answer, request.request_id)
            if rng.random() < 0.2:
                again = await _debit(stub, request, seen)
                assert again.replayed, request.request_id
                assert again.entry_id == answer.entry_id, request.request_id
                seen.repeated += 1


async def _account_for(address: str, seen: Record) -> None:
    """The books are in order, and hold every acknowledged debit once, as it was answered."""
    async with _stub(address) as stub:
        await _account_by_entries(stub, seen)
    async with grpc.aio.insecure_channel(address) as channel:
        ledger: Any = LedgerServiceStub(channel)
        *_, last = [part async for part in ledger.Audit(ledger_pb2.AuditRequest(), timeout=60)]
        assert last.done, last


async def _account_by_entries(stub: CreditServiceAsyncStub, seen: Record) -> None:
    entry_ids: dict[str, str] = {}
    for account in ACCOUNTS:
        audit = await audit_account(stub, account)
        entry_ids |= {entry.request_id: entry.entry_id for entry in audit.debits}
    for request_id, answer in seen.acknowledged.items():
        assert entry_ids.get(request_id) == answer.entry_id, f"lost: {request_id}"


@pytest.mark.timeout(900)  # make chaos starts the service fifty times
async def test_a_killed_credit_service_loses_no_debit_and_applies_none_twice(
    tmp_path: Path, seed: int, pytestconfig: pytest.Config
) -> None:
    kills = int(pytestconfig.getoption("--chaos-kills"))
    rng, seen, end = random.Random(seed), Record(), asyncio.Event()
    service = Service(tmp_path / "credits", f"127.0.0.1:{free_port()}")
    service.directory.mkdir()
    await service.start()
    try:
        async with _stub(service.address) as stub:
            for account in ACCOUNTS:
                grant = pb.GrantRequest(request_id="g", account_id=account, amount=GRANT)
                grant.request_id = f"grant-{account}"
                await stub.Grant(grant, timeout=10)
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                own = random.Random(rng.random())
                clients.create_task(_client(number, service.address, own, seen, end))
            for _ in range(kills):
                await seen.more(rng.randint(1, 200))
                await service.kill()
                await service.start()
            end.set()
        await _account_for(service.address, seen)
    finally:
        if service.child is not None:
            await stop([service.child])
    print(  # noqa: T201 (figures for make chaos)
        f"\n{kills} kills, {len(seen.acknowledged):,} debits acknowledged, "
        f"{seen.retried:,} calls retried, {seen.repeated:,} repeated on purpose"
    )
    assert seen.retried, "no call was ever cut off: the kills came at the wrong time"
    assert seen.repeated
