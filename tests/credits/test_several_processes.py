"""Several credit services on one FoundationDB cluster, called as one by the client library."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tollmesh.client import AsyncCreditClient
from tollmesh.credits.v1 import credits_pb2 as pb

from services.store.engines.foundationdb import destroy
from tests.support.deadline import DEADLINE_S
from tests.support.service_process import ServiceProcess, running

pytestmark = pytest.mark.fdb

CALLERS = 20
ENOUGH = 200


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[list[ServiceProcess]]:
    """Two processes on an empty directory of the cluster."""
    file = os.environ.get("FDB_CLUSTER_FILE")
    if not file:
        pytest.fail("FDB_CLUSTER_FILE names no cluster", pytrace=False)
    name = f"tollmesh-test-{secrets.token_hex(8)}"
    settings = {"store": f"fdb://{file}?directory={name}"}
    try:
        async with AsyncExitStack() as stack:
            homes = [tmp_path / "one", tmp_path / "other"]
            for home in homes:
                home.mkdir()
            yield [await stack.enter_async_context(running("credits", settings, h)) for h in homes]
    finally:
        await destroy(Path(file), name)


async def test_when_one_is_killed_the_other_goes_on_and_each_debit_is_applied_once(
    services: list[ServiceProcess],
) -> None:
    answered: list[pb.DebitResponse] = []
    end = asyncio.Event()

    async def caller(client: AsyncCreditClient) -> None:
        while not end.is_set():
            answered.append(await client.debit("alice", 1))

    async def until(reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not reached():  # noqa: ASYNC110 (a condition with a deadline)
                await asyncio.sleep(0.01)

    target = "ipv4:" + ",".join(service.address for service in services)
    async with AsyncCreditClient(target, deadline_s=60) as client:
        await client.grant("alice", 1 << 40)
        callers = asyncio.gather(*(caller(client) for _ in range(CALLERS)))
        await until(lambda: all("BatchDebit" in service.log() for service in services))
        await services[0].stop(signal.SIGKILL)
        enough = len(answered) + ENOUGH
        await until(lambda: len(answered) >= enough)
        end.set()
        await callers
        entries = [e async for e in client.entries("alice") if e.kind == pb.ENTRY_KIND_DEBIT]
    assert sorted(e.entry_id for e in entries) == sorted(a.entry_id for a in answered)
    assert len(entries) == len(answered)
