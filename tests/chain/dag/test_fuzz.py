"""Random damage: decoding raises the declared errors, or accepts what is a node after all."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from services.chain.dag.builder import FileBuilder
from services.chain.dag.cid import Cid
from services.chain.dag.node import Node, NodeType
from services.chain.dag.reader import read_file
from services.chain.errors import NodeInvalidError, ObjectCorruptError
from tests.support.file_dag import VECTORS, StoredNodes, build

ROUNDS = 6_000
MAX_SEED_BYTES = 2_000


def flip(raw: bytearray, at: int, rng: random.Random) -> None:
    raw[at] ^= 1 << rng.randrange(8)


def overwrite(raw: bytearray, at: int, rng: random.Random) -> None:
    raw[at] = rng.choice([0, 0x7F, 0x80, 0xFF, rng.randrange(256)])


def insert(raw: bytearray, at: int, rng: random.Random) -> None:
    raw[at:at] = rng.randbytes(rng.randint(1, 12))


def remove(raw: bytearray, at: int, rng: random.Random) -> None:
    del raw[at : at + rng.randint(1, 50)]


def repeat(raw: bytearray, at: int, rng: random.Random) -> None:
    stop = at + rng.randint(1, 60)
    raw[stop:stop] = raw[at:stop]


def truncate(raw: bytearray, at: int, _: random.Random) -> None:
    del raw[at:]


DAMAGE: list[Callable[[bytearray, int, random.Random], None]] = [
    flip,
    overwrite,
    insert,
    remove,
    repeat,
    truncate,
]


def damaged(raw: bytes, rng: random.Random) -> bytes:
    result = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 5])):
        if result:
            rng.choice(DAMAGE)(result, rng.randrange(min(len(result), 200)), rng)
    return bytes(result)


def test_a_damaged_node_is_refused_or_is_exactly_what_it_decodes_to(rng: random.Random) -> None:
    seeds = [path.read_bytes() for path in sorted((VECTORS / "nodes").iterdir())]
    seeds = [raw for raw in seeds if len(raw) <= MAX_SEED_BYTES]
    accepted = 0
    for _ in range(ROUNDS):
        raw = damaged(rng.choice(seeds), rng)
        with suppress(NodeInvalidError):
            assert Node.decode(raw).encode() == raw
            accepted += 1
    assert 0 < accepted < ROUNDS


def test_random_bytes_are_refused_or_are_a_node(rng: random.Random) -> None:
    for _ in range(ROUNDS):
        raw = b"\x0a" * rng.randint(0, 1) + rng.randbytes(rng.randint(0, 40))
        with suppress(NodeInvalidError):
            assert Node.decode(raw).encode() == raw


def change(node: Node, others: list[Cid], rng: random.Random) -> Node:
    """The node with one field changed to something likely or unlikely."""
    size = node.size or 0
    links = list(node.links)
    rng.shuffle(links)
    return rng.choice(
        [
            replace(node, type=rng.choice(list(NodeType))),
            replace(node, link_depth=rng.choice([0, 1, 2, 3, node.link_depth + 1, 2**31 - 1])),
            replace(node, size=rng.choice([None, 0, 1, size + 1, size * 2, 2**63 - 1])),
            replace(node, name=rng.choice([None, "", "other"])),
            replace(node, data=rng.choice([None, b"", b"x", rng.randbytes(20)])),
            replace(node, links=tuple(links)),
            replace(node, links=node.links[:-1]),
            replace(node, links=node.links + node.links[:1]),
            replace(node, links=node.links * 2),
            replace(node, links=(*node.links[1:], rng.choice(others))),
            replace(node, upload_options=None),
        ]
    )


def forge(cid: Cid, stored: StoredNodes, rng: random.Random) -> Cid:
    """The same tree with fields changed here and there, under true CIDs all the way up."""
    node = Node.decode(stored.nodes[cid])
    node = replace(node, links=tuple(forge(link, stored, rng) for link in node.links))
    if rng.random() < 0.04:
        node = change(node, list(stored.nodes), rng)
    return stored.put(node.encode())


async def test_a_tree_with_changed_nodes_gives_its_claimed_size_or_a_declared_error(
    rng: random.Random,
) -> None:
    outcomes = {"read": 0, "refused": 0}
    for _ in range(300):
        builder = FileBuilder("f", max_node_bytes=479, max_links=3)
        stored = build(rng.randbytes(rng.randint(0, 200)), builder)
        root = forge(builder.root, stored, rng)
        got = bytearray()
        try:
            async for piece in read_file(root, stored.fetch):
                got += piece
        except ObjectCorruptError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert Node.decode(stored.nodes[root]).size == len(got)
        assert len(stored.fetched) < 200
    assert min(outcomes.values()) > 10
