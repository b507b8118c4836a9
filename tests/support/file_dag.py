"""Files as nodes in memory, and the bytes that the vectors are made of."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.chain.dag.builder import FileBuilder
from services.chain.dag.cid import Cid
from services.chain.errors import ObjectNotFoundError

VECTORS = Path(__file__).parent.parent / "vectors" / "autonomys"


def load_vectors() -> dict[str, dict[str, Any]]:
    """The manifest's vectors, by name."""
    manifest = json.loads((VECTORS / "manifest.json").read_text())
    return {vector["name"]: vector for vector in manifest["vectors"]}


def seeded_pieces(seed: str, size_bytes: int, blocks: int = 1_024) -> Iterator[bytes]:
    """The vectors' seeded input: block i is sha256 of the seed and then of i as 8 bytes."""
    digest, done, index = hashlib.sha256(seed.encode()), 0, 0
    while done < size_bytes:
        piece = bytearray()
        for number in range(index, index + blocks):
            block = digest.copy()
            block.update(number.to_bytes(8, "big"))
            piece += block.digest()
        index += blocks
        yield bytes(piece[: size_bytes - done])
        done += len(piece)


def seeded_bytes(seed: str, size_bytes: int) -> bytes:
    """The whole of ``seeded_pieces``."""
    return b"".join(seeded_pieces(seed, size_bytes))


@dataclass
class StoredNodes:
    """Nodes by CID: what a chain is to a reader. Notes what was asked for."""

    nodes: dict[Cid, bytes] = field(default_factory=dict)
    fetched: list[Cid] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    async def fetch(self, cids: Sequence[Cid]) -> list[bytes]:
        """The nodes in order, after a turn of the loop."""
        self.fetched.extend(cids)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            missing = [str(cid) for cid in cids if cid not in self.nodes]
            if missing:
                raise ObjectNotFoundError(f"missing: {missing}")
            return [self.nodes[cid] for cid in cids]
        finally:
            self.in_flight -= 1

    def put(self, node: bytes) -> Cid:
        """Store a node under its own CID."""
        cid = Cid.of(node)
        self.nodes[cid] = node
        return cid


def build(data: bytes, builder: FileBuilder, piece_bytes: int = 1 << 20) -> StoredNodes:
    """Every node of a file; the root is ``builder.root``."""
    stored = StoredNodes()
    for at in range(0, len(data), piece_bytes):
        stored.nodes.update(builder.feed(data[at : at + piece_bytes]))
    stored.nodes.update(builder.finish())
    return stored
