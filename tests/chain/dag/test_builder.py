from __future__ import annotations

import random
import tracemalloc

import pytest

from services.chain.dag.builder import FileBuilder
from services.chain.dag.cid import Cid
from services.chain.dag.node import MAX_CHUNK_BYTES, MAX_LINKS, MAX_NODE_BYTES, Node, NodeType
from services.chain.errors import NodeInvalidError
from services.rpc.errors import InvalidArgumentError
from tests.support.file_dag import build


def small_builder(max_links: int = 3, chunk_bytes: int = 10) -> FileBuilder:
    return FileBuilder("small", max_node_bytes=469 + chunk_bytes, max_links=max_links)


def test_the_pieces_that_bytes_arrive_in_do_not_matter(rng: random.Random) -> None:
    data = rng.randbytes(rng.randint(1, 400))
    whole = small_builder()
    expected = build(data, whole).nodes
    for _ in range(50):
        builder, built, at = small_builder(), dict[Cid, bytes](), 0
        while at < len(data):
            step = rng.choice([0, 1, 9, 10, 11, rng.randint(0, 60)])
            kind = rng.choice([bytes, bytearray, memoryview])
            built.update(builder.feed(kind(data[at : at + step])))
            at += step
        built.update(builder.finish())
        assert (builder.root, built) == (whole.root, expected)


def test_every_node_comes_after_what_it_links_to_and_the_root_last(rng: random.Random) -> None:
    builder, seen = small_builder(), list[Cid]()
    for cid, raw in [*builder.feed(rng.randbytes(395)), *builder.finish()]:
        assert cid.names(raw)
        assert set(Node.decode(raw).links) <= set(seen)
        seen.append(cid)
    assert seen[-1] == builder.root


@pytest.mark.parametrize(
    ("chunks", "depth", "links", "inlinks"),
    [(2, 1, 2, 0), (3, 1, 3, 0), (4, 2, 2, 2), (9, 2, 3, 3), (10, 3, 2, 6), (27, 3, 3, 12)],
)
def test_a_level_is_added_only_when_links_do_not_fit(
    chunks: int, depth: int, links: int, inlinks: int, rng: random.Random
) -> None:
    builder = small_builder()
    nodes = build(rng.randbytes(chunks * 10), builder).nodes
    root = Node.decode(nodes[builder.root])
    assert (root.link_depth, len(root.links)) == (depth, links)
    kinds = [Node.decode(raw).type for raw in nodes.values()]
    assert kinds.count(NodeType.FILE_INLINK) == inlinks
    assert kinds.count(NodeType.FILE_CHUNK) == chunks


def test_a_name_is_part_of_the_cid_and_empty_is_not_none() -> None:
    roots = set()
    for name in (None, "", "a", "b"):
        builder = FileBuilder(name)
        build(b"same", builder)
        roots.add(builder.root)
    assert len(roots) == 4


def test_the_root_is_known_only_when_the_last_node_was_taken() -> None:
    builder = FileBuilder()
    list(builder.feed(b"data"))
    rest = builder.finish()
    with pytest.raises(RuntimeError, match="no root"):
        _ = builder.root
    list(rest)
    assert str(builder.root).startswith("bafkr6i")
    assert builder.size == 4


def test_nodes_left_untaken_are_noticed() -> None:
    builder = FileBuilder()
    builder.feed(b"never taken")
    with pytest.raises(RuntimeError, match="not every node"):
        builder.feed(b"more")
    with pytest.raises(RuntimeError, match="not every node"):
        builder.finish()


def test_a_finished_file_takes_no_more_bytes() -> None:
    builder = FileBuilder()
    list(builder.finish())
    with pytest.raises(RuntimeError, match="finished"):
        builder.feed(b"more")


@pytest.mark.parametrize("name", ["a" * 256, "😀" * 128, "\udcff"])
def test_a_name_that_cannot_be_written_is_refused_at_once(name: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        FileBuilder(name)
    assert set(refused.value.violations) == {"name"}


@pytest.mark.parametrize(("max_node_bytes", "max_links"), [(469, 2), (470, 1)])
def test_limits_without_room_for_a_tree_are_refused(max_node_bytes: int, max_links: int) -> None:
    with pytest.raises(ValueError, match="room"):
        FileBuilder(max_node_bytes=max_node_bytes, max_links=max_links)


def test_every_node_of_a_full_tree_is_within_the_limits() -> None:
    builder = FileBuilder("n" * 255)
    list(builder.feed(bytes(MAX_CHUNK_BYTES)))
    ((_, root),) = builder.finish()
    assert len(root) <= MAX_NODE_BYTES
    inlink = Node(NodeType.FILE_INLINK, 9, MAX_LINKS, links=(Cid.of(b""),) * MAX_LINKS)
    assert len(inlink.encode()) <= MAX_NODE_BYTES
    with pytest.raises(NodeInvalidError):
        Node(NodeType.FILE, data=bytes(MAX_NODE_BYTES)).encode()


def test_memory_is_bounded_by_a_chunk_and_the_links_and_not_by_the_data() -> None:
    piece = random.Random(1).randbytes(1 << 20)
    builder = FileBuilder("endless.bin")
    tracemalloc.start()
    try:
        for _ in range(128):
            for _, raw in builder.feed(piece):
                assert len(raw) <= MAX_NODE_BYTES
        for _ in builder.finish():
            pass
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert builder.size == 128 << 20
    assert peak_bytes < 1 << 20
