"""Everything behind an edge, in one process that is not measured: auth, credit, a chain.

``python -m bench.edge.world FILE SIZE...`` serves real auth and credit services and a chain that
holds an object of each size, and writes a ``World`` to the file when all of them listen.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from tollmesh.auth.v1 import auth_pb2
from tollmesh.credits.v1 import credits_pb2
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub

from bench.edge.stage import Server, Stage
from services.auth.servicer import Terms
from services.credits.errors import ERRORS as CREDIT_ERRORS
from services.credits.errors import STORE_ERRORS
from services.credits.lease_servicer import LeaseServicer
from services.credits.ledger import Ledger
from services.credits.servicer import CreditServicer
from services.credits.settings import CreditSettings
from services.rpc.client import connect
from services.rpc.server import Server as RpcServer
from services.store.open import open_store
from services.store.requests import RequestRecords
from tests.support.auth_service import Clock, running_auth_service
from tests.support.fake_chain import NETWORK, FakeChain, running_fake_chain

CREDIT = 1 << 50
_START_S = 30.0
# Decisions of an hour and no limit of requests in flight: neither is what is measured.
_TERMS = Terms(cache_us=3_600_000_000, concurrent_requests=0)
_DAY_S = 86_400
_AWAY_VARIABLE = "BENCH_CHAIN_AWAY_S"
_LONG_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class World:
    """What runs behind the edges."""

    auth: str
    credits: str
    chain: str
    account_id: str
    """Has credit without end."""
    key: str
    """Its key, for everything but administration."""
    objects: Mapping[str, str]
    """CIDs by size in bytes (a number's text: this travels as JSON)."""

    @property
    def headers(self) -> dict[str, str]:
        """What a request brings along."""
        return {"Authorization": f"Bearer {self.key}"}

    def path(self, size_bytes: int) -> str:
        """Of the object of this size."""
        return f"/objects/{NETWORK}/{self.objects[str(size_bytes)]}"


def payload(size_bytes: int) -> bytes:
    """The bytes of the object of this size; the same in every process."""
    if size_bytes > _LONG_BYTES:  # making random bytes takes its time
        return random.Random(size_bytes).randbytes(_LONG_BYTES) * (size_bytes // _LONG_BYTES)
    return random.Random(size_bytes).randbytes(size_bytes)


async def start_world(stage: Stage, sizes: Sequence[int], *, away_s: float = 0.0) -> World:
    """Starts it on the load's core; a question to the chain takes ``away_s`` to arrive."""
    file, gate = stage.home / "world.json", stage.address()
    command = [sys.executable, "-m", "bench.edge.world", str(file), gate, *map(str, sizes)]
    await stage.support("world", command, gate, {_AWAY_VARIABLE: str(away_s)})
    return World(**json.loads(file.read_text()))


async def start_edge(
    stage: Stage,
    world: World,
    name: str = "edge",
    *,
    module: str = "services.edge",
    settings: Mapping[str, str] | None = None,
) -> Server:
    """Starts an edge before it on the servers' core.

    Args:
        stage: the run.
        world: what is behind it.
        name: of the process, its log and its directory.
        module: what is run; it takes an edge's settings.
        settings: further ones, by the names of ``EdgeSettings``.
    """
    address = stage.address()
    facts = {
        "listen": address,
        "auth_target": world.auth,
        "credits_target": world.credits,
        "chain_target": world.chain,
        "default_network": NETWORK,
        "region": "bench",
        "cache_dir": str(stage.home / name),
        "log_level": "info",
        **(settings or {}),
    }
    environment = {f"TOLLMESH_EDGE_{key.upper()}": value for key, value in facts.items()}
    return await stage.serve(name, [sys.executable, "-m", module], address, environment)


async def serve(file: Path, gate: str, sizes: Sequence[int]) -> None:
    """Serves until it is ended."""
    async with AsyncExitStack() as stack:
        auth_store = await open_store("simulated:")
        credit_store = await open_store("simulated:")
        auth = await stack.enter_async_context(
            running_auth_service(auth_store, Clock(time.time_ns() // 1000), terms=_TERMS)
        )
        requests = RequestRecords("credits", keep_s=_DAY_S)
        tariff = CreditSettings.model_validate({"store": "simulated:"}).rated_tariff()
        ledger = Ledger(
            credit_store, tariff, requests, keep_s=_DAY_S, now_us=lambda: time.time_ns() // 1000
        )
        servicers = [CreditServicer(ledger), LeaseServicer(ledger)]
        credits = RpcServer(listen="127.0.0.1:0", servicers=servicers, translate=STORE_ERRORS)
        await stack.enter_async_context(credits)
        account_id = await auth.account()
        scopes = (auth_pb2.SCOPE_DOWNLOAD, auth_pb2.SCOPE_UPLOAD, auth_pb2.SCOPE_PIN)
        key = await auth.key(account_id, *scopes, auth_pb2.SCOPE_READ)
        channel = await stack.enter_async_context(connect(credits.address, errors=CREDIT_ERRORS))
        grant = credits_pb2.GrantRequest(
            request_id=uuid.uuid4().hex, account_id=account_id, amount=CREDIT
        )
        await CreditServiceStub(channel).Grant(grant)
        chain = FakeChain()
        chain.away_s = float(os.environ[_AWAY_VARIABLE])
        objects = {str(size): chain.add(payload(size)) for size in sizes}
        address = await stack.enter_async_context(running_fake_chain(chain))
        world = World(auth.address, credits.address, address, account_id, key.credential, objects)
        file.write_text(json.dumps(asdict(world)))  # noqa: ASYNC240 (nothing else happens yet)
        host, _, port = gate.rpartition(":")
        async with await asyncio.start_server(lambda _, writer: writer.close(), host, int(port)):
            await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), sys.argv[2], list(map(int, sys.argv[3:]))))
