from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from services.chain.dag.builder import FileBuilder
from services.chain.dag.cid import Cid
from services.chain.dag.node import MAX_CHUNK_BYTES, Node, NodeType, UploadOptions, encode_chunk
from services.chain.dag.reader import FileInfo, FileReader, read_file, stat
from services.chain.errors import ObjectNotFoundError, RangeNotSatisfiableError
from tests.support.file_dag import StoredNodes, build

WINDOW_BYTES = 1 << 20


async def read(root: Cid, stored: StoredNodes, offset: int = 0, length: int | None = None) -> bytes:
    pieces = read_file(root, stored.fetch, offset, length, WINDOW_BYTES)
    return b"".join([piece async for piece in pieces])


def small_file(data: bytes, max_links: int = 3, chunk_bytes: int = 10) -> tuple[Cid, StoredNodes]:
    builder = FileBuilder("small", max_node_bytes=469 + chunk_bytes, max_links=max_links)
    stored = build(data, builder)
    return builder.root, stored


async def test_what_was_built_is_read_back_around_chunk_and_link_boundaries(
    rng: random.Random,
) -> None:
    for max_links in (2, 3, 5):
        full = [max_links**power * 10 for power in range(4)]
        for size in [0, *(size + by for size in full for by in (-1, 0, 1, 10, 11))]:
            data = rng.randbytes(size)
            assert await read(*small_file(data, max_links)) == data


@pytest.mark.parametrize("chunks", [1, 2, 3])
@pytest.mark.parametrize("by", [-1, 0, 1])
async def test_files_around_the_real_chunk_size_are_read_back(
    chunks: int, by: int, rng: random.Random
) -> None:
    data = rng.randbytes(chunks * MAX_CHUNK_BYTES + by)
    builder = FileBuilder()
    stored = build(data, builder)
    assert await read(builder.root, stored) == data
    for offset in (0, 1, MAX_CHUNK_BYTES - 1, len(data) - 1, len(data)):
        for length in (0, 1, MAX_CHUNK_BYTES, None):
            stop = len(data) if length is None else offset + length
            assert await read(builder.root, stored, offset, length) == data[offset:stop]


async def test_random_ranges_of_random_trees(rng: random.Random) -> None:
    for _ in range(40):
        data = rng.randbytes(rng.randint(0, 900))
        root, stored = small_file(data, rng.randint(2, 6), rng.randint(1, 30))
        for _ in range(20):
            offset = rng.randint(0, len(data))
            length = rng.choice([None, rng.randint(0, 40), rng.randint(0, 1_000)])
            stop = len(data) if length is None else offset + length
            assert await read(root, stored, offset, length) == data[offset:stop]


async def test_a_range_fetches_only_its_own_part_of_the_tree(rng: random.Random) -> None:
    data = rng.randbytes(4**5 * 10)
    root, stored = small_file(data, max_links=4)
    assert Node.decode(stored.nodes[root]).link_depth == 5
    assert await read(root, stored, 7_770, 25) == data[7_770:7_795]
    # The root, the first node of each height, the way down, and the three chunks.
    assert len(stored.fetched) == 1 + 5 + 4 + 3


async def test_an_empty_range_fetches_the_root_alone(rng: random.Random) -> None:
    root, stored = small_file(rng.randbytes(500))
    assert await read(root, stored, 500) == b""
    assert await read(root, stored, 3, 0) == b""
    assert stored.fetched == [root, root]


async def test_equal_chunks_are_fetched_once_for_many_places() -> None:
    builder = FileBuilder()
    stored = build(bytes(20 * MAX_CHUNK_BYTES), builder)
    assert await read(builder.root, stored) == bytes(20 * MAX_CHUNK_BYTES)
    assert len(stored.nodes) == len(stored.fetched) == 2


@pytest.mark.parametrize(("offset", "length"), [(501, None), (501, 0), (-1, None), (0, -1)])
async def test_a_range_beyond_the_end_is_refused_with_the_size(
    offset: int, length: int | None, rng: random.Random
) -> None:
    root, stored = small_file(rng.randbytes(500))
    with pytest.raises(RangeNotSatisfiableError) as refused:
        await read(root, stored, offset, length)
    assert refused.value.metadata == {"size_bytes": "500"}


async def test_the_error_of_a_fetch_comes_after_the_bytes_before_it(rng: random.Random) -> None:
    data = rng.randbytes(30 * MAX_CHUNK_BYTES)
    builder = FileBuilder()
    stored = build(data, builder)
    missing = Node.decode(stored.nodes[builder.root]).links[20]
    del stored.nodes[missing]
    got = bytearray()

    async def consume() -> None:
        async for piece in read_file(builder.root, stored.fetch, window_bytes=WINDOW_BYTES):
            got.extend(piece)

    with pytest.raises(ObjectNotFoundError):
        await consume()
    assert 16 * MAX_CHUNK_BYTES <= len(got) <= 20 * MAX_CHUNK_BYTES
    assert data.startswith(got)


async def settle() -> None:
    """Let every task that can go on go on until it waits for somebody else."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_reading_ahead_is_bounded_by_the_window_and_has_several_fetches_in_flight(
    rng: random.Random,
) -> None:
    builder = FileBuilder()
    stored = build(rng.randbytes(100 * MAX_CHUNK_BYTES), builder)
    taken = 0
    async with aclosing(read_file(builder.root, stored.fetch, window_bytes=WINDOW_BYTES)) as pieces:
        async for _ in pieces:
            await settle()
            taken += 1
            ahead = len(stored.fetched) - 1 - taken
            assert ahead * MAX_CHUNK_BYTES <= WINDOW_BYTES
    assert taken == 100
    assert 2 < stored.most_in_flight <= 8


async def test_a_tiny_window_still_reads_everything(rng: random.Random) -> None:
    data = rng.randbytes(5 * MAX_CHUNK_BYTES)
    builder = FileBuilder()
    stored = build(data, builder)
    pieces = read_file(builder.root, stored.fetch, window_bytes=1)
    assert b"".join([piece async for piece in pieces]) == data
    assert stored.most_in_flight == 1


async def test_leaving_early_leaves_no_task_behind(rng: random.Random) -> None:
    builder = FileBuilder()
    stored = build(rng.randbytes(50 * MAX_CHUNK_BYTES), builder)
    async with aclosing(read_file(builder.root, stored.fetch, window_bytes=WINDOW_BYTES)) as pieces:
        await anext(pieces)
        await anext(pieces)
        assert len(asyncio.all_tasks()) > 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert stored.in_flight == 0


async def test_cancelling_a_reader_cancels_its_fetches(rng: random.Random) -> None:
    builder = FileBuilder()
    stored = build(rng.randbytes(50 * MAX_CHUNK_BYTES), builder)
    first_chunk = Node.decode(stored.nodes[builder.root]).links[0]
    stalled = asyncio.Event()

    async def fetch(cids: Sequence[Cid]) -> list[bytes]:
        if not {builder.root, first_chunk} & set(cids):
            stalled.set()
            await asyncio.Event().wait()
        return await stored.fetch(cids)

    async def consume() -> None:
        async for _ in read_file(builder.root, fetch):
            pass

    task = asyncio.create_task(consume())
    await stalled.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_one_file_reader_serves_several_ranges_at_once(rng: random.Random) -> None:
    data = rng.randbytes(9_000)
    root, stored = small_file(data, max_links=4)
    reader = await FileReader.open(root, stored.fetch)

    async def part(offset: int, length: int) -> bytes:
        return b"".join([piece async for piece in reader.read(offset, length)])

    ranges = [(rng.randint(0, 9_000), rng.randint(0, 3_000)) for _ in range(30)]
    parts = await asyncio.gather(*(part(*asked) for asked in ranges))
    assert parts == [data[offset : offset + length] for offset, length in ranges]


async def test_a_file_whose_one_node_is_empty_is_read() -> None:
    stored = StoredNodes()
    root = stored.put(Node(NodeType.FILE, size=0, data=b"").encode())
    assert await read(root, stored) == b""


def test_stat_tells_what_the_root_says() -> None:
    root = Node(NodeType.FILE, size=3, name="../n", data=b"abc", upload_options=UploadOptions())
    assert stat(root) == FileInfo(3, "../n", UploadOptions())
    old = Node(NodeType.FILE, size=3, data=b"abc")
    assert stat(old) == FileInfo(3, None, UploadOptions())


async def test_memory_is_bounded_by_the_window_and_not_by_the_file() -> None:
    """Reads 128 MiB whose chunks are made when they are asked for."""
    count = (128 << 20) // MAX_CHUNK_BYTES
    builder = FileBuilder("endless.bin")
    stored = StoredNodes()
    numbers: dict[Cid, int] = {}
    for number in range(count):
        for cid, raw in builder.feed(_chunk(number)):
            if Node.decode(raw).type is NodeType.FILE_CHUNK:
                numbers[cid] = len(numbers)
            else:
                stored.put(raw)
    for cid, raw in builder.finish():
        numbers[cid] = len(numbers)
        stored.put(raw)

    async def fetch(cids: Sequence[Cid]) -> list[bytes]:
        await asyncio.sleep(0)
        return [stored.nodes.get(cid) or encode_chunk(_chunk(numbers[cid])) for cid in cids]

    total = 0
    tracemalloc.start()
    try:
        async for piece in read_file(builder.root, fetch, window_bytes=WINDOW_BYTES):
            total += len(piece)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == count * MAX_CHUNK_BYTES
    assert peak_bytes < 3 * WINDOW_BYTES


def _chunk(number: int) -> bytes:
    return number.to_bytes(2, "big") * (MAX_CHUNK_BYTES // 2)
