"""A disk that is full, broken or not to be written: it costs hits, never a delivery."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from services.edge import upkeep
from services.edge.cache.directory import CacheDirectoryError
from services.edge.cache.scrubber import Scrubber
from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.fake_chain import NETWORK
from tests.support.service_process import run_to_its_end, running
from tests.support.small_disk import BOUND_BY_PERMISSIONS, Tmpfs

MEBIBYTE = 1024 * 1024


@contextmanager
def no_file_beyond(size_bytes: int) -> Iterator[None]:
    """From now on the kernel lets this process write no file beyond that: EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def stored_files(directory: Path) -> list[Path]:
    return [path for path in (directory / "edge" / "objects").rglob("*") if path.is_file()]


async def test_readers_go_on_without_the_cache_when_the_disk_fails_amid_an_object(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(4 * MEBIBYTE)
    cid = world.chain.add(data)
    world.chain.objects[cid].pause(at=2 * MEBIBYTE)
    reading = [asyncio.create_task(edge.get(object_path(cid), tenant)) for _ in range(3)]

    def have_two() -> bool:
        fill = edge.edge.fills.find(cid)
        return fill is not None and fill.readers == 3 and fill.received == 2 * MEBIBYTE

    await until(have_two)
    with no_file_beyond(2 * MEBIBYTE):
        world.chain.objects[cid].resume()
        answers = await asyncio.gather(*reading)
    assert all(answer.body == data for answer in answers)
    assert world.chain.reads == [(cid, 0, 4 * MEBIBYTE)] + 3 * [(cid, 2 * MEBIBYTE, 2 * MEBIBYTE)]
    assert edge.edge.disk.info(cid) is None
    await until(lambda: edge.edge.disk.used_bytes == 0, "its room is free again")
    assert (await edge.get(object_path(cid), tenant)).body == data
    await edge.cached(cid)


async def test_an_object_that_cannot_be_begun_is_read_past_the_cache(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(4 * MEBIBYTE)
    cid = world.chain.add(data)
    with no_file_beyond(2 * MEBIBYTE):
        answer = await edge.get(object_path(cid), tenant)
    assert answer.body == data
    assert answer.headers["Cache-Status"].startswith('"test"; fwd=uri-miss; detail=')
    assert edge.edge.disk.used_bytes == 0


async def test_an_object_that_cannot_be_kept_is_delivered_whole(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(MEBIBYTE)
    cid = world.chain.add(data)
    objects = world.directory / "edge" / "objects"
    world.chain.objects[cid].pause(at=1000)
    reading = asyncio.create_task(edge.get(object_path(cid), tenant))
    await until(lambda: edge.edge.fills.find(cid) is not None)
    shutil.rmtree(objects)
    objects.write_bytes(b"not a directory any more")
    world.chain.objects[cid].resume()
    assert (await reading).body == data
    await until(lambda: edge.edge.fills.find(cid) is None)
    assert edge.edge.disk.info(cid) is None
    answer = await edge.get(f"/pins/{NETWORK}/{cid}", tenant, "PUT")
    assert answer.json()["reason"] == "PIN_CAPACITY_EXHAUSTED"
    objects.unlink()
    objects.mkdir()
    assert (await edge.get(f"/pins/{NETWORK}/{cid}", tenant, "PUT")).status == 201


async def test_a_full_disk_is_passed_by(world: World, tenant: Tenant, tmp_path: Path) -> None:
    """A real one: a file system of 8 MB, where the machine lets us mount it; else a quota."""
    small = Tmpfs(tmp_path / "small") if Tmpfs.can_be_had(tmp_path) else None
    (tmp_path / "edge").mkdir()
    cache = small.directory if small else tmp_path / "edge"
    known = world.settings(cache_dir=cache, deliveries=100).model_dump(exclude_unset=True)
    settings = {name: str(value) for name, value in known.items()}
    objects = {world.chain.add(data): data for data in (some_bytes(MEBIBYTE) for _ in range(12))}
    async with running("edge", settings, tmp_path, before=small.before if small else ()) as process:
        if small is None:
            limits = (MEBIBYTE // 2, resource.RLIM_INFINITY)
            resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, limits)
        async with aiohttp.ClientSession(f"http://{process.address}") as session:
            for _ in range(2):
                for cid, data in objects.items():
                    async with session.get(object_path(cid), headers=tenant.headers) as answer:
                        assert await answer.read() == data
        assert "cache_no_room" in process.log()
        assert await process.stop() == 0


@pytest.mark.parametrize("memory_bytes", [0, 64 * MEBIBYTE])
async def test_a_file_that_cannot_be_read_is_fetched_again(
    world: World, tenant: Tenant, memory_bytes: int
) -> None:
    """Somebody cut it short: touching the mapping behind its end would end the process."""
    data = some_bytes(4 * MEBIBYTE)
    cid = world.chain.add(data)
    async with world.edge(memory_bytes=memory_bytes) as edge:
        await edge.get(object_path(cid), tenant)
        await edge.cached(cid)
        assert (await edge.get(object_path(cid), tenant)).body == data
        [file] = stored_files(world.directory)
        os.truncate(file, MEBIBYTE)
        assert (await edge.get(object_path(cid), tenant)).body == data
        await until(lambda: edge.edge.disk.info(cid) is None, "it is forgotten")
        assert (await edge.get(object_path(cid), tenant)).body == data
        await edge.cached(cid)
        answer = await edge.get(object_path(cid), tenant)
        assert (answer.headers["Cache-Status"], answer.body) == ('"test"; hit; detail=disk', data)


class Broken:
    """A step that always fails, by a mistake."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self, _: int) -> None:
        self.times += 1
        raise RuntimeError("a mistake")


async def test_a_small_file_that_cannot_be_read_is_a_miss(world: World, tenant: Tenant) -> None:
    data = some_bytes(100_000)
    cid = world.chain.add(data)
    async with world.edge(memory_bytes=0) as edge:
        await edge.get(object_path(cid), tenant)
        await edge.cached(cid)
        [file] = stored_files(world.directory)
        os.truncate(file, 10)
        answer = await edge.get(object_path(cid), tenant)
        assert answer.body == data
        assert answer.headers["Cache-Status"] == '"test"; fwd=uri-miss; stored'


async def test_a_bit_that_flips_in_a_file_in_use_is_found(world: World, tenant: Tenant) -> None:
    data = some_bytes(3 * MEBIBYTE)
    cid, other = world.chain.add(data), world.chain.add(some_bytes(1000))
    async with world.edge(scrub_bytes_per_s=0) as edge:
        for each in (cid, other):
            await edge.get(object_path(each), tenant)
            await edge.cached(each)
        assert (await edge.get(object_path(cid), tenant)).body == data, "it is open now"
        scrubber = edge.edge.upkeep.scrubber
        assert await scrubber.round() == 0
        [file] = [path for path in stored_files(world.directory) if path.stat().st_size > 1000]
        with file.open("r+b") as opened:
            opened.seek(MEBIBYTE)
            opened.write(bytes([data[MEBIBYTE] ^ 1]))
        assert await scrubber.round() == 1
        assert edge.edge.disk.info(cid) is None
        assert edge.edge.disk.info(other) is not None
        answer = await edge.get(object_path(cid), tenant)
        assert answer.body == data
        assert answer.headers["Cache-Status"] == '"test"; fwd=uri-miss; stored'


async def test_damage_is_looked_for_in_the_background(world: World, tenant: Tenant) -> None:
    data = some_bytes(10_000)
    cid = world.chain.add(data)
    async with world.edge(memory_bytes=0) as edge:
        await edge.get(object_path(cid), tenant)
        await edge.cached(cid)
        [file] = stored_files(world.directory)
        with file.open("r+b") as opened:
            opened.write(bytes([data[0] ^ 1]))
    async with world.edge(scrub_bytes_per_s=100 * MEBIBYTE) as edge:
        await until(lambda: edge.edge.disk.info(cid) is None, "it is found at the first round")
        assert (await edge.get(object_path(cid), tenant)).body == data


async def test_what_nobody_thought_of_does_not_end_that(
    world: World, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_AGAIN_S", 0.01)
    monkeypatch.setattr(Scrubber, "_pace", broken := Broken())
    cid = world.chain.add(some_bytes(10_000))
    async with world.edge(scrub_bytes_per_s=0) as edge:
        await edge.get(object_path(cid), tenant)
        await edge.cached(cid)
    async with world.edge(scrub_bytes_per_s=100 * MEBIBYTE):
        await until(lambda: broken.times > 2, "it begins again, and again")


async def test_a_cache_that_cannot_be_written_is_said_at_the_start(
    world: World, tmp_path: Path
) -> None:
    known = world.settings().model_dump(exclude_unset=True)
    settings = {name: str(value) for name, value in known.items()} | {"listen": "127.0.0.1:0"}
    cache = tmp_path / "edge"
    cache.mkdir(mode=0o500)
    try:
        status, output = await run_to_its_end("edge", settings, before=BOUND_BY_PERMISSIONS)
    finally:
        cache.chmod(0o700)
    assert status == 1
    assert CacheDirectoryError.__name__ in output
    assert "the cache directory cannot be written" in output
    assert "Traceback" not in output


async def test_a_catalog_that_is_none_is_said_at_the_start(world: World, tmp_path: Path) -> None:
    known = world.settings().model_dump(exclude_unset=True)
    settings = {name: str(value) for name, value in known.items()} | {"listen": "127.0.0.1:0"}
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "catalog.sqlite3").write_bytes(b"something else" * 1000)
    status, output = await run_to_its_end("edge", settings)
    assert status == 1
    assert "catalog.sqlite3: file is not a database" in output
    assert "Traceback" not in output
