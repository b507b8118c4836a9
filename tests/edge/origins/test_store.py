"""The store of responses and their bodies: bounded, many readers, nothing whole that is not."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.edge.origins.body import Body, TooLateError
from services.edge.origins.errors import OriginUnavailableError
from services.edge.origins.fetches import Fetches
from services.edge.origins.fields import date_text
from services.edge.origins.freshness import Defaults
from services.edge.origins.options import OriginOptions
from services.edge.origins.requests import Asked, Origin
from services.edge.origins.responses import Responses
from services.edge.origins.stored import Stored, Times
from services.edge.origins.vary import selecting
from tests.edge.conftest import until
from tests.support.http_origin import HttpOrigin, answer

NOW = 1_700_000_000.0
MEMORY, DISK, SMALL, LARGEST = 200_000, 2_000_000, 10_000, 500_000


@pytest.fixture
def responses(tmp_path: Path) -> Iterator[Responses]:
    store = Responses(
        tmp_path / "origins",
        memory_bytes=MEMORY,
        disk_bytes=DISK,
        memory_object_bytes=SMALL,
        max_object_bytes=LARGEST,
    )
    yield store
    store.close()
    assert store.memory_bytes == 0
    assert store.disk_bytes == 0
    assert not (tmp_path / "origins").exists()


async def whole(responses: Responses, content: bytes) -> Body:
    body = Body(responses)
    for start in range(0, len(content), 7000):
        await body.append(content[start : start + 7000])
    body.finish()
    return body


async def keep(responses: Responses, target: str, content: bytes, foo: str = "") -> Stored:
    said = [(b"cache-control", b"max-age=60"), (b"date", date_text(NOW)), (b"vary", b"foo")]
    request = [(b"foo", foo.encode())]
    selected = selecting(said, request)
    assert selected is not None
    body = await whole(responses, content)
    stored = Stored(200, said, Times(NOW, NOW), selected, body, Defaults(), len(content))
    responses.add(("site", target), stored, request)
    return stored


async def read(body: Body, first: int = 0, length: int | None = None) -> bytes:
    reader = body.join(first)
    try:
        return b"".join([bytes(piece) async for piece in body.pieces(reader, length)])
    finally:
        body.leave(reader)


@pytest.mark.parametrize("size", [0, 1, SMALL, SMALL + 1, LARGEST])
async def test_a_body_is_read_as_it_was_written(responses: Responses, size: int) -> None:
    content = os.urandom(size)
    body = await whole(responses, content)
    assert await read(body) == content
    assert await read(body, size // 3, size // 2) == content[size // 3 :][: size // 2]
    assert body.on_disk is (size > SMALL)
    body.drop()
    assert (responses.memory_bytes, responses.disk_bytes) == (0, 0)
    assert list(responses.directory.iterdir()) == []


async def test_readers_at_every_pace_read_the_same(
    responses: Responses, dice: random.Random
) -> None:
    content = dice.randbytes(300_000)
    body = Body(responses)

    async def reading() -> bytes:
        first, read_so_far = dice.randrange(len(content)), b""
        reader = body.join(first)
        async for piece in body.pieces(reader):
            read_so_far += piece
            for _ in range(dice.randrange(3)):
                await asyncio.sleep(0)
        body.leave(reader)
        return content[:first] + read_so_far

    readers = [asyncio.create_task(reading()) for _ in range(20)]
    position = 0
    while position < len(content):
        size = dice.randrange(1, 20_000)
        await body.append(content[position : position + size])
        position += size
        if dice.random() < 0.2:
            readers.append(asyncio.create_task(reading()))
    body.finish()
    assert all(each == content for each in await asyncio.gather(*readers))
    body.drop()


async def test_what_is_too_large_is_passed_on_at_the_pace_of_the_slowest(
    responses: Responses,
) -> None:
    content = os.urandom(8 * 1024 * 1024)
    body = Body(responses)
    slow, fast = body.join(), body.join()

    async def write() -> None:
        for start in range(0, len(content), 64 * 1024):
            await body.append(content[start : start + 64 * 1024])
        body.finish()

    async def take(reader: object, gate: asyncio.Event) -> bytes:
        got = b""
        async for piece in body.pieces(reader):  # type: ignore[arg-type]  # one of the two above
            got += piece
            await gate.wait()
        return got

    held, free = asyncio.Event(), asyncio.Event()
    free.set()
    writing = asyncio.create_task(write())
    reading = [asyncio.create_task(take(slow, held)), asyncio.create_task(take(fast, free))]
    await until(lambda: body.size > LARGEST + 1024 * 1024)
    for _ in range(50):
        await asyncio.sleep(0)
    assert body.size < 3 * 1024 * 1024  # no more than the window beyond the slow reader's place
    assert not body.kept
    held.set()
    assert await asyncio.gather(*reading) == [content, content]
    await writing
    with pytest.raises(TooLateError):
        body.join(LARGEST + 1)
    body.leave(slow)
    body.leave(fast)
    body.drop()


async def test_what_is_neither_kept_nor_read_is_not_taken_in(responses: Responses) -> None:
    body = Body(responses)
    while body.kept:
        await body.append(bytes(64 * 1024))
    with pytest.raises(OriginUnavailableError):
        await body.append(b"more")
    body.drop()


async def test_a_body_that_fails_is_never_whole(responses: Responses) -> None:
    body = Body(responses)
    await body.append(b"part")
    reading = asyncio.create_task(read(body))
    await asyncio.sleep(0)
    body.fail(OriginUnavailableError("gone"))
    with pytest.raises(OriginUnavailableError):
        await reading
    body.drop()
    with pytest.raises(OriginUnavailableError):
        body.join()


async def test_memory_and_disk_are_bounded_whatever_comes(
    responses: Responses, dice: random.Random
) -> None:
    contents = dict[str, bytes]()
    for _ in range(300):
        target = f"/{dice.randrange(200)}"
        size = dice.choice([0, 100, SMALL, 50_000, LARGEST + 1])
        contents[target] = dice.randbytes(size)
        await keep(responses, target, contents[target])
        assert responses.memory_bytes <= MEMORY
        assert responses.disk_bytes <= DISK
        on_disk = sum(path.stat().st_size for path in responses.directory.iterdir())
        assert on_disk == responses.disk_bytes
    kept = list(responses)
    assert kept
    for key in kept:
        stored = responses.find(key, [(b"foo", b"")])
        assert stored is not None
        assert await read(stored.body) == contents[key[1]]


async def test_what_was_not_used_for_longest_goes_first_but_not_what_is_read(
    responses: Responses,
) -> None:
    first = await keep(responses, "/first", bytes(400_000))
    used = await keep(responses, "/used", bytes(400_000))
    reader = first.body.join()
    for number in range(4):
        responses.find(("site", "/used"), [(b"foo", b"")])
        await keep(responses, f"/{number}", bytes(400_000))
    kept = {target for _, target in responses}
    assert {"/first", "/used", "/3"} <= kept
    assert "/0" not in kept
    first.body.leave(reader)
    assert used.body.on_disk


async def test_a_response_that_is_removed_is_read_to_its_end(responses: Responses) -> None:
    content = os.urandom(300_000)
    stored = await keep(responses, "/a", content)
    reader = stored.body.join()
    assert responses.purge("site") == 1
    assert responses.find(("site", "/a"), [(b"foo", b"")]) is None
    assert b"".join([bytes(piece) async for piece in stored.body.pieces(reader)]) == content
    stored.body.leave(reader)
    assert responses.disk_bytes == 0


async def test_a_variant_takes_the_place_of_its_like_alone(responses: Responses) -> None:
    for content in (b"1", b"2"):
        for foo in ("a", "b"):
            await keep(responses, "/x", content + foo.encode(), foo)
    assert len(responses.variants(("site", "/x"))) == 2
    found = responses.find(("site", "/x"), [(b"foo", b"b")])
    assert found is not None
    assert await read(found.body) == b"2b"
    assert responses.find(("site", "/x"), [(b"foo", b"c")]) is None


async def test_variants_of_one_target_are_bounded(responses: Responses) -> None:
    for number in range(100):
        await keep(responses, "/x", b"1", str(number))
    assert len(responses.variants(("site", "/x"))) == 32


async def test_a_body_that_is_given_up_while_it_is_written_takes_no_room(
    responses: Responses,
) -> None:
    gate = threading.Event()
    for _ in range(16):
        responses.threads.submit(gate.wait)  # so that the write is under way, but not done
    body = Body(responses)
    appending = asyncio.create_task(body.append(bytes(SMALL + 1)))
    await until(lambda: responses.disk_bytes > 0)
    appending.cancel()
    await asyncio.wait({appending})
    body.drop()
    gate.set()
    await until(lambda: responses.disk_bytes == 0, "the room is given back")
    assert list(responses.directory.iterdir()) == []


async def test_what_is_removed_just_as_it_is_asked_about_holds_nobody_up(
    responses: Responses, origin: HttpOrigin
) -> None:
    origin.on("/a", answer(200, b"new", cache_control="max-age=60"))
    site = Origin("site", OriginOptions.model_validate({"url": origin.url}))
    asked = Asked(site, "GET", "/a", [(b"host", b"x")], {}, authorized=False, has_body=False)
    fetches = Fetches(responses)
    fetches.renew(asked, await keep(responses, "/a", b"old"))
    responses.purge("site")
    joined = fetches.under_way(asked, [])
    assert joined is not None
    await until(joined.arrived.done, "the answer comes")
    assert joined.arrived.result().status == 200
    await until(lambda: fetches.under_way(asked, []) is None, "it ends")
    await fetches.close()
    site.client.close()


async def test_files_of_an_earlier_process_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "origins").mkdir()
    (tmp_path / "origins" / "left").write_bytes(b"over")
    bounds = {"memory_bytes": 1, "disk_bytes": 1, "memory_object_bytes": 1, "max_object_bytes": 1}
    store = Responses(tmp_path / "origins", **bounds)
    assert list(store.directory.iterdir()) == []
    store.close()


async def test_a_body_goes_on_unkept_when_its_directory_takes_no_more(
    responses: Responses,
) -> None:
    responses.directory.rmdir()
    content = os.urandom(100_000)
    body = Body(responses)
    reader = body.join()
    for start in range(0, len(content), 7000):
        await body.append(content[start : start + 7000])
    body.finish()
    assert b"".join([bytes(piece) async for piece in body.pieces(reader)]) == content
    assert not body.kept
    body.leave(reader)
    body.drop()
    responses.directory.mkdir()
