"""Files made to mislead: each is refused, and no byte past the last right one is given."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from services.chain.dag.builder import FileBuilder
from services.chain.dag.cid import Cid
from services.chain.dag.node import MAX_LINKS, MAX_NODE_BYTES, Node, NodeType, UploadOptions
from services.chain.dag.reader import FileReader, read_file
from services.chain.dag.tree import Limits
from services.chain.errors import NodeInvalidError, NotAFileError, ObjectCorruptError
from tests.support.file_dag import StoredNodes, build

FILE, INLINK, CHUNK = NodeType.FILE, NodeType.FILE_INLINK, NodeType.FILE_CHUNK
EMPTY = UploadOptions()


class Forgery(StoredNodes):
    """Nodes made by hand, under their true CIDs."""

    got = bytearray()
    """What the last read gave."""

    def add(self, node: Node) -> Cid:
        return self.put(node.encode())

    def chunk(self, data: bytes) -> Cid:
        return self.add(Node(CHUNK, size=len(data), data=data))

    def chunks(self, *sizes: int) -> tuple[Cid, ...]:
        return tuple(self.chunk(bytes([at]) * size) for at, size in enumerate(sizes))

    def inlink(self, height: int, *links: Cid) -> Cid:
        return self.add(Node(INLINK, height, len(links), links=links))

    def root(self, size: int, depth: int, *links: Cid) -> Cid:
        return self.add(Node(FILE, depth, size, "f", links=links, upload_options=EMPTY))

    async def read(self, root: Cid, offset: int = 0, length: int | None = None) -> bytes:
        self.got = bytearray()
        async for piece in read_file(root, self.fetch, offset, length):
            self.got += piece
        return bytes(self.got)


@pytest.fixture
def forgery() -> Forgery:
    return Forgery()


async def refused(forgery: Forgery, root: Cid, why: str, sent: int = 0) -> None:
    """Reading the file must fail for this reason after exactly this many bytes."""
    with pytest.raises(ObjectCorruptError, match=why):
        await forgery.read(root)
    assert len(forgery.got) == sent


async def test_the_forger_can_make_good_files_too(forgery: Forgery) -> None:
    flat = forgery.root(25, 1, *forgery.chunks(10, 10, 5))
    assert len(await forgery.read(flat)) == 25
    a, b, c = forgery.chunks(10, 10, 5)
    deep = forgery.root(25, 2, forgery.inlink(1, a, b), forgery.inlink(1, c))
    assert await forgery.read(deep) == await forgery.read(flat)


async def test_a_node_that_does_not_match_its_cid(forgery: Forgery) -> None:
    a, b, c = forgery.chunks(10, 10, 10)
    forgery.nodes[b] = forgery.nodes[c]
    await refused(forgery, forgery.root(30, 1, a, b, c), f"{b} does not match", sent=10)


async def test_a_root_that_does_not_match_its_cid(forgery: Forgery) -> None:
    forgery.nodes[Cid.of(b"asked for")] = Node(FILE, size=1, data=b"x").encode()
    await refused(forgery, Cid.of(b"asked for"), "does not match")


async def test_every_single_flipped_bit_of_a_node_is_noticed(forgery: Forgery) -> None:
    a, b = forgery.chunks(20, 20)
    root = forgery.root(40, 1, a, b)
    good = forgery.nodes[b]
    for bit in range(len(good) * 8):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        forgery.nodes[b] = bytes(flipped)
        await refused(forgery, root, "does not match", sent=20)


async def test_a_node_larger_than_nodes_are(forgery: Forgery) -> None:
    await refused(forgery, forgery.put(bytes(MAX_NODE_BYTES + 1)), "more than a node has")


async def test_bytes_that_are_no_node(forgery: Forgery) -> None:
    await refused(forgery, forgery.put(b"\xff\xff\xff"), "node")


async def test_more_links_than_a_node_may_have(forgery: Forgery) -> None:
    link = b"\x12\x26\x0a\x24\x01\x55\x1f\x20" + bytes(32)
    with pytest.raises(NodeInvalidError, match="1627 links"):
        await forgery.read(forgery.put(link * (MAX_LINKS + 1) + b"\x0a\x02\x18\x01"))


async def test_a_link_with_another_codec_or_hash(forgery: Forgery) -> None:
    good = Node(FILE, 1, 2, links=forgery.chunks(1, 1)).encode()
    for other in (b"\x01\x70\x1f\x20", b"\x01\x55\x1e\x20", b"\x00\x55\x1f\x20"):
        with pytest.raises(NodeInvalidError):
            await forgery.read(forgery.put(good.replace(b"\x01\x55\x1f\x20", other, 1)))


async def test_a_name_over_255_bytes(forgery: Forgery) -> None:
    content = b"\x18\x00\x22\x80\x02" + b"a" * 256 + b"\x32\x00"
    root = forgery.put(b"\x0a" + bytes([0x80 | len(content) & 0x7F, len(content) >> 7]) + content)
    with pytest.raises(NodeInvalidError, match="name has 256"):
        await forgery.read(root)


@pytest.mark.parametrize("kind", [kind for kind in NodeType if kind is not FILE])
async def test_a_root_of_another_type(kind: NodeType, forgery: Forgery) -> None:
    with pytest.raises(NotAFileError, match="and not a file"):
        await forgery.read(forgery.add(Node(kind, size=3, data=b"abc")))


@pytest.mark.parametrize("kind", [kind for kind in NodeType if kind is not CHUNK])
@pytest.mark.parametrize("place", [0, 1])
async def test_another_type_where_a_chunk_must_be(
    kind: NodeType, place: int, forgery: Forgery
) -> None:
    links = list(forgery.chunks(10, 10, 10))
    links[place] = forgery.add(Node(kind, size=10, data=bytes(10)))
    await refused(forgery, forgery.root(30, 1, *links), "not a chunk", sent=10 * place)


@pytest.mark.parametrize("kind", [kind for kind in NodeType if kind is not INLINK])
@pytest.mark.parametrize("place", [0, 1])
async def test_another_type_where_a_file_inlink_must_be(
    kind: NodeType, place: int, forgery: Forgery
) -> None:
    a, b, c, d = forgery.chunks(10, 10, 10, 10)
    links = [forgery.inlink(1, a, b), forgery.inlink(1, c, d)]
    links[place] = forgery.add(Node(kind, 1, 2, links=((a, b), (c, d))[place]))
    with pytest.raises(ObjectCorruptError, match="not a FileInlink of depth 1"):
        await forgery.read(forgery.root(40, 2, *links))


@pytest.mark.parametrize(
    "extra", [{"name": "n"}, {"data": b"d"}, {"upload_options": EMPTY}, {"size": 3}, {"size": None}]
)
async def test_a_file_inlink_with_fields_of_other_nodes(
    extra: dict[str, object], forgery: Forgery
) -> None:
    a, b, c = forgery.chunks(10, 10, 10)
    inlink = Node(INLINK, 1, 2, links=(a, b))
    bad = forgery.add(replace(inlink, **extra))  # type: ignore[arg-type]  # any field
    await refused(forgery, forgery.root(30, 2, bad, forgery.inlink(1, c)), "not a FileInlink")


@pytest.mark.parametrize(
    "extra", [{"name": "n"}, {"link_depth": 1}, {"size": 11}, {"size": None}, {"data": None}]
)
@pytest.mark.parametrize("place", [0, 1])
async def test_a_chunk_with_fields_of_other_nodes(
    extra: dict[str, object], place: int, forgery: Forgery
) -> None:
    links = list(forgery.chunks(10, 10, 10))
    chunk = Node(CHUNK, size=10, data=bytes([place]) * 10)
    links[place] = forgery.add(replace(chunk, **extra))  # type: ignore[arg-type]  # any field
    await refused(forgery, forgery.root(30, 1, *links), "chunk", sent=10 * place)


async def test_a_chunk_with_links(forgery: Forgery) -> None:
    a, c = forgery.chunks(10, 10)
    bad = forgery.add(Node(CHUNK, size=10, data=bytes(10), links=(a,)))
    await refused(forgery, forgery.root(30, 1, a, bad, c), "not a chunk", sent=10)


@pytest.mark.parametrize("size", [1, 20, 24, 26, 30, 31, 2**40, 2**63 - 1])
async def test_a_root_whose_size_is_not_the_sum_of_its_chunks(size: int, forgery: Forgery) -> None:
    with pytest.raises(ObjectCorruptError):
        await forgery.read(forgery.root(size, 1, *forgery.chunks(10, 10, 5)))
    assert len(forgery.got) <= 20


async def test_chunks_of_different_sizes_with_the_right_sum(forgery: Forgery) -> None:
    root = forgery.root(30, 1, *forgery.chunks(10, 12, 8))
    await refused(forgery, root, "not a chunk of 10 bytes", sent=10)


async def test_an_empty_chunk(forgery: Forgery) -> None:
    await refused(forgery, forgery.root(10, 1, *forgery.chunks(0, 10)), "empty")
    await refused(forgery, forgery.root(10, 1, *forgery.chunks(10, 0)), "first chunk")


@pytest.mark.parametrize(
    "root",
    [
        Node(FILE, 0, 4, data=b"abc"),
        Node(FILE, 0, None, data=b"abc"),
        Node(FILE, 1, 3, data=b"abc"),
        Node(FILE, 0, 3, data=b"abc", links=(Cid.of(b""),)),
        Node(FILE, 0, 0),
        Node(FILE, 2, 0),
        Node(FILE, 1, None),
        Node(FILE, 1, 3),
        Node(FILE, 1, 3, links=(Cid.of(b""),)),
        Node(FILE, 0, 3, links=(Cid.of(b""),) * 2),
        Node(FILE, 1, 1, links=(Cid.of(b""),) * 2),
        Node(FILE, 1, 0, links=(Cid.of(b""),) * 2),
        Node(FILE, 1, None, links=(Cid.of(b""),) * 2),
    ],
)
async def test_a_root_whose_fields_contradict_each_other(root: Node, forgery: Forgery) -> None:
    await refused(forgery, forgery.add(root), "do not agree")
    assert len(forgery.fetched) == 1


async def test_an_inlink_that_claims_its_parents_depth_as_a_cycle_would(forgery: Forgery) -> None:
    a, b, c = forgery.chunks(10, 10, 10)
    loop = forgery.inlink(2, forgery.inlink(1, a, b), forgery.inlink(1, c))
    await refused(forgery, forgery.root(30, 2, loop, loop), "not a FileInlink of depth 1")


async def test_a_node_that_is_its_own_child_cannot_match_its_cid(forgery: Forgery) -> None:
    own = Cid.of(b"guess")
    forgery.nodes[own] = Node(FILE, 1, 20, links=(own, own)).encode()
    await refused(forgery, own, "does not match")


async def test_a_tree_deeper_than_its_links_need(forgery: Forgery) -> None:
    a, b = forgery.chunks(10, 10)
    chain = forgery.root(20, 2, forgery.inlink(1, a), forgery.inlink(1, b))
    await refused(forgery, chain, "deeper than its number of links needs")


async def test_a_tree_deeper_than_the_limit_is_refused_from_its_root_alone(
    forgery: Forgery,
) -> None:
    await refused(forgery, forgery.root(1 << 30, 17, *forgery.chunks(1, 1)), "too deep")
    await refused(forgery, forgery.root(1 << 30, 2**31 - 1, *forgery.chunks(1, 1)), "too deep")
    assert len(forgery.fetched) == 2


async def test_few_nodes_that_stand_for_very_many_are_refused(forgery: Forgery) -> None:
    """A tree that shares its nodes: a dozen of them claim 2^24 chunks of one byte."""
    link = forgery.chunk(b"x")
    for height in range(1, 12):
        link = forgery.inlink(height, link, link, link, link)
    await refused(forgery, forgery.root(4**12, 12, link, link, link, link), "too many nodes")
    assert len(forgery.fetched) == 13


async def test_a_size_beyond_the_limit_is_refused_from_the_root_alone(forgery: Forgery) -> None:
    await refused(forgery, forgery.root(1 << 62, 1, *forgery.chunks(1, 1)), "too many nodes")
    assert len(forgery.fetched) == 1


async def test_the_limits_can_be_lowered(forgery: Forgery) -> None:
    root = forgery.root(30, 1, *forgery.chunks(10, 10, 10))
    reader = await FileReader.open(root, forgery.fetch, Limits(chunks=2))
    with pytest.raises(ObjectCorruptError, match="3 chunks: too many"):
        await anext(reader.read())


@pytest.mark.parametrize(
    ("sizes", "why"),
    [
        ((3, 2, 3), "2 links where the file's size asks for 3"),
        ((3, 4, 1), "4 links where the file's size asks for 3"),
        ((3, 3, 1, 1), "deeper"),
        ((2, 2, 2), "deeper"),
        ((3, 1, 1), "3 links where the file's size asks for 2"),
    ],
)
async def test_inlinks_that_do_not_fill_up_in_order(
    sizes: tuple[int, ...], why: str, forgery: Forgery
) -> None:
    chunks = iter(forgery.chunks(*[10] * sum(sizes)))
    links = [forgery.inlink(1, *(next(chunks) for _ in range(size))) for size in sizes]
    root = forgery.root(10 * sum(sizes), 2, *links)
    with pytest.raises(ObjectCorruptError, match=why):
        await forgery.read(root)
    with pytest.raises(ObjectCorruptError):
        await forgery.read(root, 10 * sum(sizes[:2]) - 1)


@pytest.mark.parametrize("sizes", [(1, 2), (3, 1)])
async def test_inlinks_of_inlinks_that_do_not_fill_up_in_order(
    sizes: tuple[int, int], forgery: Forgery
) -> None:
    chunks = iter(forgery.chunks(*[10] * 8))
    upper = []
    for size in sizes:
        lower = [forgery.inlink(1, next(chunks), next(chunks)) for _ in range(size)]
        upper.append(forgery.inlink(2, *lower))
    root = forgery.root(20 * sum(sizes), 3, *upper)
    for offset in range(0, 20 * sum(sizes), 10):
        with pytest.raises(ObjectCorruptError):
            await forgery.read(root, offset)


async def test_a_bad_first_chunk_is_noticed_by_ranges_that_do_not_touch_it(
    forgery: Forgery,
) -> None:
    bad = forgery.add(Node(FILE, size=10, data=bytes(10)))
    root = forgery.root(30, 1, bad, *forgery.chunks(10, 10))
    with pytest.raises(ObjectCorruptError, match="not a chunk"):
        await forgery.read(root, 25)


@pytest.mark.parametrize("damage", [-1, 1])
async def test_a_chunk_that_is_shorter_or_longer_than_it_says(
    damage: int, forgery: Forgery
) -> None:
    a, b, c = forgery.chunks(10, 10, 10)
    raw = forgery.nodes[b]
    bad = forgery.put(raw[:-1] if damage < 0 else raw + b"x")
    await refused(forgery, forgery.root(30, 1, a, bad, c), "not a chunk", sent=10)


async def test_a_range_behind_a_lie_is_refused_or_the_same_as_the_whole(
    rng: random.Random,
) -> None:
    """Whatever chunk sizes a file has, no two reads give different bytes at one offset."""
    for _ in range(200):
        forgery = Forgery()
        sizes = [rng.choice([7, 8, 9, 10]) for _ in range(rng.randint(2, 9))]
        chunks = tuple(forgery.chunk(rng.randbytes(size)) for size in sizes)
        root = forgery.root(sum(sizes) + rng.choice([-1, 0, 0, 1]), 1, *chunks)
        seen: dict[int, int] = {}
        for offset in range(sum(sizes) - 1):
            with suppress(ObjectCorruptError):
                await forgery.read(root, offset)
            for at, byte in enumerate(forgery.got, offset):
                assert seen.setdefault(at, byte) == byte


@pytest.mark.parametrize("answer", [0, 2])
async def test_another_number_of_nodes_than_asked_for(answer: int) -> None:
    builder = FileBuilder()
    stored = build(b"data", builder)

    async def fetch(cids: Sequence[Cid]) -> list[bytes]:
        return (await stored.fetch(cids)) * answer

    with pytest.raises(ObjectCorruptError, match=f"got {answer}"):
        await FileReader.open(builder.root, fetch)
