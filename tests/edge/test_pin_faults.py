"""Pins that cannot be recorded, or whose caller gives up while they are: all of it, or nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.edge.admission import Caller
from services.edge.cache.pin_records import PinRecords
from services.edge.objects import ObjectKey
from tests.edge.conftest import RunningEdge, Tenant, World, some_bytes
from tests.support.fake_chain import NETWORK
from tests.support.service_process import running
from tests.support.small_disk import Quota, SmallDisk, Tmpfs

SIZE = 737_280
PRICE = 720
"""Of the first period of an object of that size, by the default tariff."""
CATALOG_LOG = "catalog.sqlite3-wal"


@pytest.fixture(params=["tmpfs", "quota"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> SmallDisk:
    """A file system of its own where the machine lets us mount one; else a quota again."""
    if request.param == "tmpfs" and Tmpfs.can_be_had(tmp_path):
        return Tmpfs(tmp_path / "edge")
    (tmp_path / "edge").mkdir()
    return Quota(tmp_path / "edge", CATALOG_LOG)


async def test_on_a_full_disk_pins_are_refused_whole_and_can_be_tried_again(
    world: World, tenant: Tenant, tmp_path: Path, disk: SmallDisk
) -> None:
    kept, wanted = (world.chain.add(some_bytes(SIZE)) for _ in range(2))
    known = world.settings(deliveries=100, scrub_bytes_per_s=0).model_dump(exclude_unset=True)
    settings = {name: str(value) for name, value in known.items()}
    async with (
        running("edge", settings, tmp_path, before=disk.before) as process,
        aiohttp.ClientSession(f"http://{process.address}", headers=tenant.headers) as session,
    ):

        async def ask(method: str, path: str, key: str) -> tuple[int, dict[str, Any], str]:
            named = {"Idempotency-Key": key}
            async with session.request(method, path, headers=named) as answer:
                document = await answer.json() if answer.status != 204 else {}
                return answer.status, document, answer.headers.get("Retry-After", "")

        paths = {cid: f"/pins/{NETWORK}/{cid}" for cid in (kept, wanted)}
        assert (await ask("PUT", paths[kept], "first"))[0] == 201
        warmed, _, _ = await ask("POST", f"/objects/{NETWORK}/{wanted}/warm", "warm")
        assert warmed == 200
        before = await tenant.paid()
        disk.fill(process.process.pid, room_bytes=0)
        for method, path in (("PUT", paths[wanted]), ("PUT", paths[kept]), ("DELETE", paths[kept])):
            status, problem, retry_after = await ask(method, path, f"{method}-{path[-8:]}")
            assert (status, problem["reason"], retry_after) == (503, "STORE_UNAVAILABLE", "1")
            assert "could not be recorded" in problem["detail"]
            assert str(tmp_path) not in str(problem), "it is no business of the caller's"
        async with session.get("/pins") as answer:
            assert [each["cid"] for each in (await answer.json())["pins"]] == [kept]
        assert await tenant.paid() == before
        assert "cache_catalog_unwritable" in process.log()
        assert "incident_id" not in process.log()
        disk.make_room(process.process.pid)
        assert (await ask("DELETE", paths[kept], f"DELETE-{kept[-8:]}"))[0] == 204
        status, pinned, _ = await ask("PUT", paths[wanted], f"PUT-{wanted[-8:]}")
        assert (status, pinned["amount"]) == (201, PRICE)
        async with session.get("/pins") as answer:
            assert [each["cid"] for each in (await answer.json())["pins"]] == [wanted]
        assert [entry.amount for entry in await tenant.paid()] == [
            *(entry.amount for entry in before),
            PRICE,
        ]
        assert await process.stop() == 0


@asynccontextmanager
async def given_up(
    monkeypatch: pytest.MonkeyPatch, step: str, asking: Coroutine[Any, Any, object]
) -> AsyncIterator[None]:
    """The caller of ``asking`` goes away while the catalog does ``step``, which then ends."""
    usual, reached, released = getattr(PinRecords, step), asyncio.Event(), threading.Event()

    async def held_up(records: PinRecords, *values: Any) -> None:  # noqa: ANN401 (whatever it takes)
        monkeypatch.setattr(PinRecords, step, usual)
        records._catalog._pool.submit(released.wait)
        reached.set()
        await usual(records, *values)

    monkeypatch.setattr(PinRecords, step, held_up)
    caller = asyncio.create_task(asking)
    try:
        await reached.wait()
        await asyncio.sleep(0)  # from here on the catalog has it
        caller.cancel()
        await asyncio.sleep(0)  # now the caller knows
    finally:
        released.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    yield


async def test_an_unpin_is_whole_though_its_caller_gives_up(
    world: World, edge: RunningEdge, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins, caller = edge.edge.pins, Caller(tenant.account_id, tenant.key_id, 0)
    key = ObjectKey(NETWORK, world.chain.add(some_bytes(SIZE)))
    await pins.pin(caller, key, "pin")
    async with given_up(monkeypatch, "remove", pins.unpin(caller, key, "unpin")):
        assert (pins.all(), pins.used_bytes) == ([], 0)
        await pins.unpin(caller, key, "unpin")
        assert (await pins.pin(caller, key, "again")).created


async def test_a_pin_is_whole_though_its_caller_gives_up(
    world: World, edge: RunningEdge, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins, caller = edge.edge.pins, Caller(tenant.account_id, tenant.key_id, 0)
    key = ObjectKey(NETWORK, world.chain.add(some_bytes(SIZE)))
    async with given_up(monkeypatch, "put", pins.pin(caller, key, "pin")):
        [pin] = pins.all()
        assert pin.key == key
        assert (await pins.pin(caller, key, "pin")).paid_until > time.time()
        assert [entry.amount for entry in await tenant.paid()] == [PRICE]
        assert pins.used_bytes == SIZE
        await pins.unpin(caller, key, "unpin")
        assert pins.used_bytes == 0


async def test_a_pin_that_two_end_at_once_is_let_go_of_once(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    """The operator's ban ends it while its account unpins it."""
    other = await world.tenant()
    pins, caller = edge.edge.pins, Caller(tenant.account_id, tenant.key_id, 0)
    key = ObjectKey(NETWORK, world.chain.add(some_bytes(SIZE)))
    await pins.pin(caller, key, "pin")
    [pin] = pins.all()
    await pins.pin(Caller(other.account_id, other.key_id, 0), key, "pin")
    await asyncio.gather(pins.unpin(caller, key, "unpin"), pins.end(pin, "banned"))
    assert pins.is_kept(key.cid), "the other one keeps it"
