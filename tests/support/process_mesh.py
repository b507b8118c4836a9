"""An edge and the services behind it, each a process that can be halted, killed and started."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tollmesh.auth.v1 import auth_pb2
from tollmesh.auth.v1.auth_pb2_grpc import AccountServiceStub
from tollmesh.credits.v1 import credits_pb2
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub

from services.auth import errors as auth_errors
from services.cli.mesh.processes import free_port
from services.credits import errors as credits_errors
from services.rpc.client import connect
from tests.support.chain_process import made_objects
from tests.support.deadline import DEADLINE_S
from tests.support.fake_chain import NETWORK
from tests.support.service_process import ServiceProcess, running

if TYPE_CHECKING:
    from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceAsyncStub

_SCOPES = (auth_pb2.SCOPE_DOWNLOAD, auth_pb2.SCOPE_UPLOAD, auth_pb2.SCOPE_READ)


@dataclass
class ProcessMesh:
    """The processes by name (auth, credits, chain, edge), and what there is to read."""

    directory: Path
    settings: Mapping[str, Mapping[str, str]]
    objects: dict[str, bytes]
    stack: AsyncExitStack
    processes: dict[str, ServiceProcess] = field(default_factory=dict)

    async def start(self, name: str) -> None:
        """Starts a process, on the address that it always has."""
        module = "tests.support.chain_process" if name == "chain" else ""
        self.processes[name] = await self.stack.enter_async_context(
            running(name, self.settings[name], self.directory, module=module)
        )

    async def halt(self, name: str) -> None:
        """Stops a process as it is, with all its threads: it keeps its connections, no more."""
        process = self.processes[name].process
        process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.to_thread(_wait_until_stopped, process.pid)

    def resume(self, name: str) -> None:
        """Lets a halted process go on."""
        self.processes[name].process.send_signal(signal.SIGCONT)

    async def kill(self, name: str) -> None:
        """Kills a process; ``start`` begins another one on its data."""
        assert await self.processes[name].stop(signal.SIGKILL) == -signal.SIGKILL

    @property
    def url(self) -> str:
        """Of the edge."""
        return f"http://{self.processes['edge'].address}"

    async def account(self, credit: int = 1_000_000_000) -> tuple[str, str]:
        """An account with credit: its id and a key."""
        target = self.settings["auth"]["listen"]
        async with connect(target, errors=auth_errors.ERRORS) as channel:
            accounts = AccountServiceStub(channel)
            made = await accounts.CreateAccount(
                auth_pb2.CreateAccountRequest(request_id=uuid.uuid4().hex)
            )
            account_id = made.account.account_id
            key = await accounts.CreateApiKey(
                auth_pb2.CreateApiKeyRequest(
                    request_id=uuid.uuid4().hex, account_id=account_id, scopes=_SCOPES
                )
            )
        async with self.credits() as credits:
            await credits.Grant(
                credits_pb2.GrantRequest(
                    request_id=uuid.uuid4().hex, account_id=account_id, amount=credit
                )
            )
        return account_id, key.credential

    @asynccontextmanager
    async def credits(self) -> AsyncIterator[CreditServiceAsyncStub]:
        """A stub of the credit service."""
        target = self.settings["credits"]["listen"]
        async with connect(target, errors=credits_errors.ERRORS) as channel:
            yield CreditServiceStub(channel)


def _wait_until_stopped(pid: int) -> None:
    """Blocks until all threads of a process are stopped, which a busy machine puts off."""
    while not all(map(_is_stopped, Path(f"/proc/{pid}/task").iterdir())):
        time.sleep(0.005)


def _is_stopped(task: Path) -> bool:
    """Whether a thread is stopped by a signal (proc(5): the state behind its name)."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"


@asynccontextmanager
async def process_mesh(
    directory: Path, seed: int, sizes: list[int], **overrides: Mapping[str, str]
) -> AsyncIterator[ProcessMesh]:
    """Starts all four processes; ``overrides`` are settings by service."""
    pepper = directory / "pepper"
    pepper.write_bytes(b"a pepper of at least thirty-two bytes")
    listen = {name: f"127.0.0.1:{free_port()}" for name in ("auth", "credits", "chain", "edge")}
    defaults: dict[str, dict[str, str]] = {
        "auth": {"store": f"lmdb://{directory}/auth", "peppers": json.dumps({"1": str(pepper)})},
        "credits": {"store": f"lmdb://{directory}/credits", "face": "grpcio"},
        "chain": {"seed": str(seed), "sizes": json.dumps(sizes)},
        "edge": {
            "auth_target": listen["auth"],
            "credits_target": listen["credits"],
            "chain_target": listen["chain"],
            "cache_dir": str(directory / "cache"),
            "default_network": NETWORK,
            "region": "test",
        },
    }
    settings = {
        name: {"listen": listen[name], **values, **overrides.get(name, {})}
        for name, values in defaults.items()
    }
    async with AsyncExitStack() as stack:
        mesh = ProcessMesh(directory, settings, made_objects(seed, sizes), stack)
        for name in ("auth", "credits", "chain", "edge"):
            await mesh.start(name)
        yield mesh
