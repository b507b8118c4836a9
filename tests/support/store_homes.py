"""Where a store lives, for suites that run on every engine: the same data, opened again and again.

``ENGINES`` are the parameters of a fixture; ``open_home`` makes what one of them names. The cluster
that ``FDB_CLUSTER_FILE`` names gets a fresh directory, which is removed in the end; when it names
none, the test fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from services.store.engines.foundationdb import destroy
from services.store.engines.simulated import SimulatedCluster
from services.store.errors import StoreUnavailableError
from services.store.group_commit import GroupCommit, Limits
from services.store.open import open_store
from services.store.port import Store
from tests.support import store_writer
from tests.support.deadline import DEADLINE_S

ENGINES = ["lmdb", "simulated", pytest.param("foundationdb", marks=pytest.mark.fdb)]

SMALL_LOG = "lmdb with a small log"
"""One more, for the suite of the store itself."""


class Home(Protocol):
    """The data of one store."""

    async def open(self, limits: Limits | None = None) -> Store:
        """Opens the store; the caller closes it."""

    async def open_all(self, clients: int) -> list[Store]:
        """Opens it for several clients at once, or for one when the engine serves only one."""

    async def write_until_killed(self, seed: int) -> list[str]:
        """Runs ``store_writer`` until it is killed at some moment: what it had acknowledged."""


class ProcessHome:
    """A store that any process can open by its URL."""

    def __init__(self, url: str, *, clients: int) -> None:
        self.url = url
        self._clients = clients

    async def open(self, limits: Limits | None = None) -> Store:
        return await open_store(self.url, limits=limits)

    async def open_all(self, clients: int) -> list[Store]:
        return [await self.open() for _ in range(min(clients, self._clients))]

    async def write_until_killed(self, seed: int) -> list[str]:
        return await _killed(await store_writer.start(self.url, seed), seed)


class SmallLogHome:
    """An LMDB store with a log so small that there is a checkpoint all the time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def open(self, limits: Limits | None = None) -> Store:
        return GroupCommit(store_writer.small_log(self._directory), limits)

    async def open_all(self, clients: int) -> list[Store]:
        del clients
        return [await self.open()]

    async def write_until_killed(self, seed: int) -> list[str]:
        return await _killed(await store_writer.start(str(self._directory), seed), seed)


async def _killed(process: store_writer.WriterProcess, seed: int) -> list[str]:
    dice = random.Random(seed)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                await process.first_line()
            await asyncio.sleep(dice.uniform(0.0, 0.1))
    finally:
        lines = await process.kill()
    return lines


class SimulatedHome:
    """A store on a simulated cluster; killing a client is a crash of the simulation."""

    def __init__(self, seed: int) -> None:
        self.cluster = SimulatedCluster(seed)

    async def open(self, limits: Limits | None = None) -> Store:
        return GroupCommit(self.cluster.engine(), limits)

    async def open_all(self, clients: int) -> list[Store]:
        return [await self.open() for _ in range(clients)]

    async def write_until_killed(self, seed: int) -> list[str]:
        acknowledged: list[str] = []
        store = await self.open()
        writing = asyncio.create_task(store_writer.write(store, seed, acknowledged.append))
        for _ in range(random.Random(seed).randrange(400)):
            await asyncio.sleep(0)
        self.cluster.crash()
        with contextlib.suppress(StoreUnavailableError):
            await writing
        await store.close()
        return acknowledged


@asynccontextmanager
async def open_home(engine: str, directory: Path, seed: int) -> AsyncIterator[Home]:
    """A home of the named engine, empty; its data is gone afterwards."""
    if engine == SMALL_LOG:
        yield SmallLogHome(directory / "store")
    elif engine == "lmdb":
        yield ProcessHome(f"lmdb://{directory}/store", clients=1)
    elif engine == "simulated":
        yield SimulatedHome(seed)
    else:
        cluster_file = os.environ.get("FDB_CLUSTER_FILE")
        if not cluster_file:
            pytest.fail("FDB_CLUSTER_FILE names no cluster", pytrace=False)
        name = f"tollmesh-test-{secrets.token_hex(8)}"
        try:
            yield ProcessHome(f"fdb://{cluster_file}?directory={name}", clients=100)
        finally:
            await destroy(Path(cluster_file), name)
