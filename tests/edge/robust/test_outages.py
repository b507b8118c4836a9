"""A service behind an edge hangs or is killed: what needs it is refused soon, the rest goes on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from tollmesh.credits.v1 import credits_pb2

from tests.edge.conftest import object_path, until
from tests.support.deadline import DEADLINE_S
from tests.support.ledger_audit import audit_account
from tests.support.process_mesh import ProcessMesh, process_mesh

HELD, SIZE = 6, 20_000
READERS = 8
WAYS = ("hang", "kill")
DECISION_S = 3.0
"""How long an edge may reuse what the auth service decided."""


@dataclass
class _Reader:
    """Somebody who reads again and again, and notes what came of it."""

    session: aiohttp.ClientSession
    mesh: ProcessMesh
    account_id: str
    key: str
    statuses: Counter[int] = field(default_factory=Counter)
    received: int = 0
    slowest_s: float = 0.0

    async def get(self, cid: str) -> int:
        """One download: right, or refused with 503 and Retry-After, and soon; the status."""
        began = time.monotonic()
        async with asyncio.timeout(DEADLINE_S):
            url = self.mesh.url + object_path(cid)
            async with self.session.get(url, headers={"X-API-Key": self.key}) as answer:
                body = await answer.read()
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.statuses[answer.status] += 1
        if answer.status == 200:
            assert body == self.mesh.objects[cid]
            self.received += len(body)
        else:
            assert answer.status == 503, (answer.status, body)
            assert int(answer.headers["Retry-After"]) >= 1
        return answer.status


class _Scene:
    """A mesh, its held objects, and readers."""

    def __init__(self, mesh: ProcessMesh, session: aiohttp.ClientSession) -> None:
        self.mesh = mesh
        self.cids = list(mesh.objects)
        self.held = self.cids[:HELD]
        self._session = session
        self._unread = iter(self.cids[HELD:])

    async def reader(self) -> _Reader:
        """A new account with credit."""
        return _Reader(self._session, self.mesh, *await self.mesh.account())

    def unread(self) -> str:
        """An object that nobody has asked for yet."""
        return next(self._unread)

    async def warm(self, readers: list[_Reader]) -> None:
        """Brings the held objects into the cache, and the readers' decisions and credit."""
        for reader in readers:
            for cid in self.held * 2:
                assert await reader.get(cid) == 200

    async def lease(self, readers: list[_Reader]) -> None:
        """Has the readers read until this edge has a lease of each, which is opened soon."""
        async with self.mesh.credits() as credits:
            for reader in readers:
                request = credits_pb2.GetBalanceRequest(account_id=reader.account_id)

                async def is_leased() -> bool:
                    await reader.get(self.held[0])  # noqa: B023 (awaited within the turn)
                    balance = (await credits.GetBalance(request)).balance  # noqa: B023 (as above)
                    return balance.held > 0

                await until(is_leased, "a lease is open")

    @asynccontextmanager
    async def without(self, name: str, way: str) -> AsyncIterator[None]:
        """Takes a service away, one way or the other."""
        if way == "hang":
            await self.mesh.halt(name)
        else:
            await self.mesh.kill(name)
        try:
            yield
        finally:
            if way == "hang":
                self.mesh.resume(name)
            else:
                await self.mesh.start(name)

    async def accounted(self, *readers: _Reader) -> None:
        """Everything that was received is paid for, once, and the books are in order."""
        async with self.mesh.credits() as credits:
            for reader in readers:
                account = reader.account_id
                await until(lambda: self._is_paid(reader))  # noqa: B023 (awaited within the turn)
                audit = await audit_account(credits, account)
                assert audit.usage_quantity("download") == reader.received

    async def _is_paid(self, reader: _Reader) -> bool:
        async with self.mesh.credits() as credits:
            audit = await audit_account(credits, reader.account_id)
        return audit.usage_quantity("download") == reader.received


async def _go_on(readers: list[_Reader], cids: list[str], seconds: float) -> None:
    """All readers at once, for a while, whatever they are answered."""
    end = time.monotonic() + seconds

    async def go_on(reader: _Reader) -> None:
        while time.monotonic() < end:
            for cid in cids:
                status = await reader.get(cid)
                await asyncio.sleep(0.05 if status == 200 else 0.2)

    await asyncio.gather(*(go_on(reader) for reader in readers))


@pytest.fixture
async def scene(tmp_path: Path, seed: int) -> AsyncIterator[_Scene]:
    overrides = {"auth": {"decision_cache_s": str(DECISION_S)}, "edge": {"origin_idle_s": "5"}}
    async with (
        process_mesh(tmp_path, seed, [SIZE] * 40, **overrides) as mesh,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield _Scene(mesh, session)


@pytest.fixture
def outage_s(pytestconfig: pytest.Config) -> float:
    return float(pytestconfig.getoption("--outage-s"))


def _figures(what: str, readers: list[_Reader]) -> None:
    statuses = sum((reader.statuses for reader in readers), Counter[int]())
    slowest = max(reader.slowest_s for reader in readers)
    print(f"{what}: {dict(statuses)}, the slowest answer after {slowest:.1f} s")  # noqa: T201 (figures)


async def test_without_the_chain_service_hits_go_on_and_misses_are_refused(
    scene: _Scene, outage_s: float
) -> None:
    hits = [await scene.reader() for _ in range(READERS)]
    misses = await scene.reader()
    await scene.warm([*hits, misses])
    for way in WAYS:
        _forget(*hits, misses)
        async with scene.without("chain", way):
            await asyncio.gather(
                _go_on(hits, scene.held, outage_s), _go_on([misses], [scene.unread()], outage_s)
            )
        _figures(f"chain, {way}, hits", hits)
        _figures(f"chain, {way}, misses", [misses])
        assert all(set(reader.statuses) == {200} for reader in hits)
        assert set(misses.statuses) == {503}
        await _works(misses, scene.unread())
    await scene.accounted(*hits, misses)


async def test_without_the_auth_service_decisions_last_as_long_as_they_may(
    scene: _Scene, outage_s: float
) -> None:
    known = await scene.reader()
    readers = [known]
    for way in WAYS:
        unknown = await scene.reader()
        readers.append(unknown)
        await scene.warm([known])
        async with scene.without("auth", way):
            assert await known.get(scene.held[0]) == 200
            assert await unknown.get(scene.held[0]) == 503
            await _go_on([known, unknown], scene.held, max(outage_s, 2 * DECISION_S))
            assert await known.get(scene.held[0]) == 503, "its decision is too old"
        _figures(f"auth, {way}", [known, unknown])
        assert unknown.statuses[200] == 0
        await _works(unknown, scene.held[0])
        await _works(known, scene.held[0])
    await scene.accounted(*readers)


async def test_without_the_credit_service_nothing_is_delivered_that_is_not_paid(
    scene: _Scene, outage_s: float
) -> None:
    leased, readers = [await scene.reader() for _ in range(READERS)], list[_Reader]()
    for way in WAYS:
        unknown = await scene.reader()
        readers.append(unknown)
        await scene.warm(leased)
        await scene.lease(leased)
        _forget(*leased)
        async with scene.without("credits", way):
            await asyncio.gather(
                _go_on(leased, scene.held, outage_s), _go_on([unknown], scene.held, outage_s)
            )
        _figures(f"credits, {way}, leased", leased)
        _figures(f"credits, {way}, not leased", [unknown])
        assert set(unknown.statuses) == {503}
        # A lease may be spent or on its way back when the outage begins; not all of them are.
        assert any(reader.statuses[200] for reader in leased), "hits go on within the lease"
        await _works(unknown, scene.held[0])
    await scene.accounted(*leased, *readers)


def _forget(*readers: _Reader) -> None:
    for reader in readers:
        reader.statuses.clear()
        reader.slowest_s = 0.0


async def _works(reader: _Reader, cid: str) -> None:
    """Waits until a reader gets an object again."""

    async def works() -> bool:
        return await reader.get(cid) == 200

    await until(works, "it is served again")
