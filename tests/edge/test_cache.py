"""The cache tiers: bounded, shared, and never wrong about what they hold."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

import pytest
from tollmesh.chain.v1 import chain_pb2

from services.edge.cache.catalog import Catalog
from services.edge.cache.directory import CacheInUseError
from services.edge.cache.disk import DiskCache
from services.edge.cache.files import resident
from services.edge.cache.memory import MokaCache, bytes_weight
from services.edge.objects import ObjectInfo, ObjectKey
from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.fake_chain import NETWORK, OTHER_NETWORK, cid_of
from tests.support.seeds import chosen_seed

LIMIT = 1_000_000


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[DiskCache]:
    disk = await open_disk(tmp_path)
    yield disk
    await disk.close()


async def open_disk(directory: Path, max_bytes: int = LIMIT, max_objects: int = 100) -> DiskCache:
    disk = DiskCache(
        directory,
        Catalog(directory / "catalog.sqlite3"),
        max_bytes=max_bytes,
        max_objects=max_objects,
    )
    await disk.open()
    return disk


class Value:
    """Something of a size whose end is seen."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes


def info_of(data: bytes) -> ObjectInfo:
    return ObjectInfo(cid_of(data), len(data), "name", "text/plain")


async def put(disk: DiskCache, data: bytes) -> bool:
    partial = await disk.begin(info_of(data))
    if partial is None:
        return False
    await disk.append(partial, data[:100])
    await disk.append(partial, data[100:])
    await disk.keep(partial, {"net"})
    return True


def files_bytes(directory: Path) -> int:
    """What the files really take, by their sizes."""
    total = 0
    for file in [*(directory / "partial").rglob("*"), *(directory / "objects").rglob("*")]:
        with suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


async def test_what_is_put_is_there_after_a_restart(tmp_path: Path) -> None:
    data = some_bytes(5000)
    disk = await open_disk(tmp_path)
    assert await put(disk, data)
    await disk.close()
    again = await open_disk(tmp_path)
    mapping = await again.mapping(cid_of(data))
    assert mapping is not None
    assert mapping[:] == data
    assert again.info(cid_of(data)) == info_of(data)
    assert again.final_on(ObjectKey("net", cid_of(data)))
    assert not again.final_on(ObjectKey("other", cid_of(data)))
    await again.close()


async def test_the_bound_holds_at_every_moment(tmp_path: Path) -> None:
    seed = chosen_seed()
    rng = random.Random(seed)
    disk = await open_disk(tmp_path, max_objects=20)
    largest, ended = 0, asyncio.Event()

    async def watch() -> None:
        nonlocal largest
        while not ended.is_set():
            largest = max(largest, await asyncio.to_thread(files_bytes, tmp_path))
            assert disk.used_bytes <= LIMIT
            assert len(disk) <= 20
            await asyncio.sleep(0.001)

    async def work() -> None:
        for _ in range(25):
            data = rng.randbytes(rng.randrange(1, 200_000))
            partial = await disk.begin(info_of(data))
            if partial is None:
                continue
            await disk.append(partial, data)
            if rng.random() < 0.8:
                await disk.keep(partial, set())
            else:
                await disk.discard(partial)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(work() for _ in range(4)))
    ended.set()
    await watching
    assert 0 < largest <= LIMIT
    assert files_bytes(tmp_path) == disk.used_bytes
    await disk.close()


async def test_what_is_being_read_or_pinned_is_not_forgotten(disk: DiskCache) -> None:
    pinned, read, other = (some_bytes(300_000) for _ in range(3))
    for data in (pinned, read, other):
        assert await put(disk, data)
    disk.spare({cid_of(pinned)})
    mapping = await disk.mapping(cid_of(read))
    assert await put(disk, some_bytes(300_000))
    assert disk.info(cid_of(other)) is None
    assert disk.info(cid_of(pinned)) is not None
    assert disk.info(cid_of(read)) is not None
    assert mapping is not None
    assert mapping[:] == read
    assert not await put(disk, some_bytes(800_000)), "there is no room beside those two"


async def test_a_reader_of_a_discarded_file_keeps_its_bytes_and_their_room(
    disk: DiskCache,
) -> None:
    partial = await disk.begin(info_of(bytes(600_000)))
    assert partial is not None
    await disk.append(partial, b"x" * 1000)
    view = memoryview(partial.mapping)[:1000]
    await disk.discard(partial)
    del partial
    assert bytes(view) == b"x" * 1000
    assert disk.used_bytes == 600_000
    del view
    await until(lambda: disk.used_bytes == 0, "nobody holds the file any more")


async def test_a_damaged_file_is_thrown_away_after_an_unclean_stop(tmp_path: Path) -> None:
    good, damaged, missing = (some_bytes(5000) for _ in range(3))
    disk = await open_disk(tmp_path)
    for data in (good, damaged, missing):
        await put(disk, data)
    await disk._catalog.close(clean=False)
    disk._pool.shutdown()
    disk._directory.release()
    for file in (tmp_path / "objects").rglob("*"):
        if file.is_file() and file.read_bytes() == damaged:
            file.write_bytes(bytes(5000))
        elif file.is_file() and file.read_bytes() == missing:
            file.unlink()
    (tmp_path / "objects" / "zz").mkdir()
    (tmp_path / "objects" / "zz" / "stray").write_bytes(b"?")
    (tmp_path / "partial" / "rest").write_bytes(b"?")
    again = DiskCache(
        tmp_path, Catalog(tmp_path / "catalog.sqlite3"), max_bytes=LIMIT, max_objects=9
    )
    await again.open()
    assert await again.mapping(cid_of(missing)) is None
    assert await again.mapping(cid_of(damaged)) is None
    mapping = await again.mapping(cid_of(good))
    assert mapping is not None
    assert mapping[:] == good
    assert files_bytes(tmp_path) == again.used_bytes == 5000
    await again.close()


async def test_a_directory_has_one_owner(tmp_path: Path, disk: DiskCache) -> None:
    assert disk.used_bytes == 0
    with pytest.raises(CacheInUseError):
        await open_disk(tmp_path)


async def test_a_cold_file_is_read_ahead_off_the_loop(disk: DiskCache) -> None:
    data = some_bytes(900_000)
    await put(disk, data)
    mapping = await disk.mapping(cid_of(data))
    assert mapping is not None
    os.sync()
    os.posix_fadvise(mapping.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    await disk.in_memory(mapping, 0, len(data))
    assert resident(mapping, 0, len(data))
    assert mapping[:] == data


async def test_the_memory_tier_stays_within_its_bytes() -> None:
    cache = MokaCache(LIMIT, bytes_weight)
    for number in range(200):
        await cache.set(f"key-{number}", bytes(50_000))
        assert cache.weight <= LIMIT
    assert cache.weight > LIMIT // 2
    assert await cache.multi_get(["key-0", "absent"]) is not None
    await cache.set("brief", b"x", ttl=0.02)
    await asyncio.sleep(0.05)
    assert await cache.get("brief") is None
    assert await cache.delete("absent") == 0
    await cache.clear()
    assert cache.weight == 0


async def test_the_memory_tier_holds_no_more_than_its_bytes_at_any_moment() -> None:
    """And a few values that are just leaving: moka drops them when no thread looks at them.

    Counted by who is alive, not by what the cache says.
    """
    alive: WeakSet[Value] = WeakSet()
    cache = MokaCache(LIMIT, lambda _, value: value.size_bytes)
    for number in range(1000):
        value = Value(100_000)
        alive.add(value)
        cache.put(f"key-{number}", value)
        del value
        assert sum(each.size_bytes for each in alive) <= 2 * LIMIT
    assert cache.weight == LIMIT


async def test_the_memory_tier_keeps_what_is_popular_through_a_scan() -> None:
    cache = MokaCache(LIMIT, bytes_weight)
    popular = [f"popular-{number}" for number in range(10)]
    for key in popular * 20:
        if await cache.get(key) is None:
            await cache.set(key, bytes(50_000))
    for number in range(1000):
        await cache.set(f"scanned-{number}", bytes(50_000))
    assert await cache.multi_get(popular) == [bytes(50_000)] * 10


async def test_small_objects_come_from_memory_and_large_ones_from_disk(
    world: World, tenant: Tenant
) -> None:
    small, large = some_bytes(10_000), some_bytes(20_000)
    cids = [world.chain.add(small), world.chain.add(large)]
    async with world.edge(memory_object_bytes=10_000) as edge:
        for cid in cids:
            await edge.get(object_path(cid), tenant)
            await edge.cached(cid)
            await edge.get(object_path(cid), tenant)
        details = [
            (await edge.get(object_path(cid), tenant)).headers["Cache-Status"] for cid in cids
        ]
        assert details == ['"test"; hit; detail=memory', '"test"; hit; detail=disk']
        part = await edge.get(object_path(cids[0]), tenant, Range="bytes=5-9")
        assert part.body == small[5:10]


async def test_an_edge_forgets_to_stay_within_its_disk(world: World, tenant: Tenant) -> None:
    async with world.edge(disk_bytes=LIMIT, pin_bytes=0, memory_bytes=0) as edge:
        for _ in range(8):
            data = some_bytes(300_000)
            cid = world.chain.add(data)
            assert (await edge.get(object_path(cid), tenant)).body == data
            await edge.cached(cid)
            assert edge.edge.disk.used_bytes <= LIMIT
        assert len(edge.edge.disk) == 3


async def test_the_other_network_shares_the_bytes_but_not_the_standing(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello", networks=frozenset({NETWORK, OTHER_NETWORK}))
    await edge.get(object_path(cid), tenant)
    await edge.cached(cid)
    world.chain.objects[cid].finality = chain_pb2.FINALITY_LATEST
    answer = await edge.get(object_path(cid, OTHER_NETWORK), tenant)
    assert answer.headers["Cache-Status"] == '"test"; hit; detail=disk'
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert len(world.chain.reads) == 1
