"""What happens to the machine under a running service: a clear error, nothing lost, and it goes on.

The real process, over gRPC, under load. The other faults have files of their own: torn and cut
files in tests/store/test_torn_page.py, clocks that jump in test_clock_jumps.py, and a service that
is killed again and again in tests/mesh/test_chaos.py.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2

from services.cli.mesh.processes import free_port
from services.credits.errors import ERRORS
from services.rpc.client import connect
from services.rpc.errors import OverloadedError, ServiceError, StoreUnavailableError
from tests.support.credit_service import Account, stub_of
from tests.support.deadline import DEADLINE_S
from tests.support.ledger_audit import audit_account
from tests.support.service_process import ServiceProcess, run_to_its_end, running
from tests.support.small_disk import BOUND_BY_PERMISSIONS, Quota, SmallDisk, Tmpfs

if TYPE_CHECKING:
    from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceAsyncStub

Settings = dict[str, str]
CLIENTS, GRANT, RESOURCE = 8, 10_000_000, "r" * 200
LARGE_LOG_BYTES = 20_000_000
BATCH, FLOOD_BATCHES, FLOOD_MEMORY_BYTES = 1000, 60, 400_000_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return {
        "store": f"lmdb://{tmp_path}/store",
        "listen": f"127.0.0.1:{free_port()}",
        "sweep_s": "0.05",
        "face": "grpcio",
    }


class Load:
    """Clients that debit two accounts, each debit until it is answered."""

    def __init__(self, stub: CreditServiceAsyncStub) -> None:
        self.stub = stub
        self.done: list[tuple[pb.DebitRequest, pb.DebitResponse]] = []
        self.refusals: Counter[type[ServiceError]] = Counter()
        self._ended = False
        self._moved = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Between these clients are at work; in the end each has its last answer."""
        clients = asyncio.create_task(self.run_to_the_end())
        try:
            yield
        finally:
            self.end()
            await clients

    async def run_to_the_end(self) -> None:
        """Clients at work; after ``end`` each goes until it has its last answer."""
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(self._client(f"account-{number % 2}"))

    def end(self) -> None:
        """No further debit is begun."""
        self._ended = True

    async def until_done(self, more: int) -> None:
        """Waits until so many more debits are answered."""
        wanted = len(self.done) + more
        await self._until(lambda: len(self.done) >= wanted)

    async def until_refused(self, more: int, *reasons: type[ServiceError]) -> None:
        """Waits until so many more attempts were refused, for one of these reasons."""
        wanted = sum(self.refusals[reason] for reason in reasons) + more
        await self._until(lambda: sum(self.refusals[reason] for reason in reasons) >= wanted)

    async def until_answered(self, more: int) -> None:
        """Waits until so many more attempts were done or refused."""
        wanted = len(self.done) + self.refusals.total() + more
        await self._until(lambda: len(self.done) + self.refusals.total() >= wanted)

    async def verify(self) -> None:
        """Every debit that was answered is there once, as it was answered, and the books agree."""
        assert self.done
        entry_ids: dict[str, str] = {}
        for account_id in ("account-0", "account-1"):
            audit = await audit_account(self.stub, account_id)
            entry_ids |= {entry.request_id: entry.entry_id for entry in audit.debits}
        assert entry_ids == {request.request_id: done.entry_id for request, done in self.done}
        for request, done in self.done[-CLIENTS:]:
            again = await self.stub.Debit(request)
            assert (again.replayed, again.balance) == (True, done.balance)
        await _audit(self.stub)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._moved.clear()
                await self._moved.wait()

    async def _client(self, account_id: str) -> None:
        while not self._ended:
            request = Account(self.stub, account_id).debit_request(1, resource=RESOURCE)
            while True:
                try:
                    answer = await self.stub.Debit(request, timeout=20, wait_for_ready=True)
                except ServiceError as error:
                    if error.code is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    self.refusals[type(error)] += 1
                    self._moved.set()
                    await asyncio.sleep(0.02)
                else:
                    self.done.append((request, answer))
                    self._moved.set()
                    break


@pytest.fixture(params=["quota", "quota, and the log is on it", "tmpfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> SmallDisk:
    """A tmpfs only where the machine lets the test mount one; else a quota again."""
    if request.param == "tmpfs" and Tmpfs.can_be_had(tmp_path):
        return Tmpfs(tmp_path / "store")
    if "log" in request.param:
        (tmp_path / "credits.log").write_bytes(b" " * LARGE_LOG_BYTES + b"\n")
    return Quota(tmp_path / "store")


async def test_on_a_full_disk_debits_are_refused_until_there_is_room(
    settings: Settings, tmp_path: Path, disk: SmallDisk
) -> None:
    settings["store"] = f"lmdb://{disk.directory}"
    async with (
        running("credits", settings, tmp_path, before=disk.before) as service,
        connect(service.address, errors=ERRORS) as channel,
    ):
        pid, load = service.process.pid, Load(stub_of(channel))
        await _grant(load.stub)
        async with load.running():
            for _ in range(2):
                await load.until_done(50)
                disk.fill(pid)
                await load.until_refused(3 * CLIENTS, StoreUnavailableError)
                # What there is can still be read.
                balance = await Account(load.stub, "account-0").balance()
                assert balance.balance.spent
                disk.make_room(pid)
                await load.until_done(50)
        await load.verify()
        assert set(load.refusals) == {StoreUnavailableError}
        assert await service.stop() == 0
        refusals = _logged(service, "call_translated")
        told = f"cannot write the store in {disk.directory}: "
        assert all(
            told in line["error"] and "make room there" in line["error"] for line in refusals
        )
        if service.log_file.stat().st_size < LARGE_LOG_BYTES:  # else the log could not be written
            assert refusals


async def test_a_service_that_is_ended_on_a_full_disk_ends_cleanly_and_loses_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    disk = Quota(tmp_path / "store")
    async with connect(settings["listen"], errors=ERRORS) as channel:
        load = Load(stub_of(channel))
        async with running("credits", settings, tmp_path) as service:
            await _grant(load.stub)
            clients = asyncio.create_task(load.run_to_the_end())
            await load.until_done(50)
            disk.fill(service.process.pid)
            await load.until_refused(CLIENTS, StoreUnavailableError)
            assert await service.stop() == 0
        async with running("credits", settings, tmp_path):
            load.end()
            await clients
            await load.verify()


async def test_a_killed_service_has_everything_that_it_answered(
    settings: Settings, tmp_path: Path
) -> None:
    async with (
        AsyncExitStack() as processes,
        connect(settings["listen"], errors=ERRORS) as channel,
    ):
        load = Load(stub_of(channel))
        service = await processes.enter_async_context(running("credits", settings, tmp_path))
        await _grant(load.stub)
        async with load.running():
            for _ in range(3):
                await load.until_done(50)
                assert await service.stop(signal.SIGKILL) == -signal.SIGKILL
                service = await processes.enter_async_context(
                    running("credits", settings, tmp_path)
                )
            await load.until_done(50)
        await load.verify()
        assert await service.stop() == 0


async def test_a_read_only_store_is_one_clear_line_until_it_is_writable(
    settings: Settings, tmp_path: Path
) -> None:
    directory = tmp_path / "store"
    async with _served(settings, tmp_path) as (_, load):
        await _grant(load.stub)
        async with load.running():
            await load.until_done(20)
    (directory / "data.mdb").chmod(0o444)
    await _check_refused_start(settings, directory)
    (directory / "data.mdb").chmod(0o644)
    async with _served(settings, tmp_path, load):
        await load.verify()
    empty = tmp_path / "empty"
    empty.mkdir(0o555)
    elsewhere = {**settings, "store": f"lmdb://{empty}"}
    await _check_refused_start(elsewhere, empty)
    empty.chmod(0o755)
    async with _served(elsewhere, tmp_path) as (_, load):
        await _grant(load.stub)


async def test_a_directory_that_becomes_read_only_loses_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    """What is open may still be written; whatever cannot be is refused, and done afterwards."""
    directory = tmp_path / "store"
    async with _served(settings, tmp_path) as (_, load):
        await _grant(load.stub)
        async with load.running():
            await load.until_done(50)
            directory.chmod(0o555)
            await load.until_answered(200)
            directory.chmod(0o755)
            await load.until_done(50)
        assert set(load.refusals) <= {StoreUnavailableError}
        await load.verify()


async def test_a_flood_is_refused_early_and_what_was_refused_was_not_done(
    settings: Settings, tmp_path: Path
) -> None:
    """More calls at once than the service takes: some are refused with their reason, none lost."""
    settings["max_concurrent_calls"] = "20"
    async with _served(settings, tmp_path) as (service, load):
        await _grant(load.stub)
        account = Account(load.stub, "account-0")
        flood = [account.debit_request(1) for _ in range(400)]
        answers = await asyncio.gather(
            *(load.stub.Debit(request) for request in flood), return_exceptions=True
        )
        outcomes = list(zip(flood, answers, strict=True))
        refused = [request for request, answer in outcomes if isinstance(answer, OverloadedError)]
        done = [pair[0] for pair in outcomes if isinstance(pair[1], pb.DebitResponse)]
        assert refused
        assert len(refused) + len(done) == len(flood)
        made = {entry.request_id for entry in (await audit_account(load.stub, "account-0")).debits}
        assert made == {request.request_id for request in done}
        for request in refused:
            assert not (await load.stub.Debit(request)).replayed
        assert (await account.balance()).balance.spent == len(flood)
        await _audit(load.stub)
        assert await service.stop() == 0


async def test_a_flood_of_batches_takes_bounded_memory_and_each_is_done_or_refused(
    settings: Settings, tmp_path: Path
) -> None:
    """More debits at once than may wait: a batch is refused before anything of it is done."""
    async with _served(settings, tmp_path) as (service, load):
        await _grant(load.stub)
        accounts = [Account(load.stub, f"account-{number}") for number in range(2)]
        before = _peak_bytes(service)
        flood = [
            pb.BatchDebitRequest(
                debits=[accounts[number % 2].debit_request(1) for number in range(BATCH)]
            )
            for _ in range(FLOOD_BATCHES)
        ]
        calls = [load.stub.BatchDebit(batch, timeout=60) for batch in flood]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert _peak_bytes(service) - before < FLOOD_MEMORY_BYTES
        done = 0
        for batch, answer in zip(flood, answers, strict=True):
            if not isinstance(answer, pb.BatchDebitResponse):
                assert isinstance(answer, OverloadedError), answer
                continue
            done += len(batch.debits)
            assert all(outcome.HasField("debit") for outcome in answer.outcomes)
        spent = [(await account.balance()).balance.spent for account in accounts]
        assert sum(spent) == done > 0
        await _audit(load.stub)


@asynccontextmanager
async def _served(
    settings: Settings, directory: Path, load: Load | None = None
) -> AsyncIterator[tuple[ServiceProcess, Load]]:
    async with (
        running("credits", settings, directory, before=BOUND_BY_PERMISSIONS) as service,
        connect(service.address, errors=ERRORS) as channel,
    ):
        stub = stub_of(channel)
        if load is None:
            load = Load(stub)
        load.stub = stub
        yield service, load


async def _check_refused_start(settings: Settings, directory: Path) -> None:
    status, output = await run_to_its_end("credits", settings, before=BOUND_BY_PERMISSIONS)
    assert status == 1, output
    (line,) = output.splitlines()
    assert f"cannot open the store in {directory}: " in line
    assert "Permission denied" in line
    assert "make it writable for the user of this service" in line


async def _grant(stub: CreditServiceAsyncStub) -> None:
    for account_id in ("account-0", "account-1"):
        await Account(stub, account_id).grant(GRANT)


async def _audit(stub: CreditServiceAsyncStub) -> None:
    *_, last = [part async for part in cast("Any", stub).Audit(ledger_pb2.AuditRequest())]
    assert last.done, last


def _peak_bytes(service: ServiceProcess) -> int:
    """The most memory that the process has had so far (proc(5): VmHWM, in KiB)."""
    lines = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def _logged(service: ServiceProcess, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]
