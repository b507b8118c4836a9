"""The nodes of one file, fetched as they are needed and held to the file's layout.

A DAG comes from strangers. Each node is checked against its CID, and then against what the layout
says that it must be: its type, its height, its number of links or bytes. The layout itself follows
from the root and the first node of each height alone, so that every reader of a file finds the same
byte at the same offset, or an error, however hostile the rest is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from services.chain.dag.cid import Cid
from services.chain.dag.layout import Layout
from services.chain.dag.node import MAX_NODE_BYTES, Node, NodeType, chunk_head
from services.chain.errors import NotAFileError, ObjectCorruptError

Fetch: TypeAlias = Callable[[Sequence[Cid]], Awaitable[list[bytes]]]
"""Gets nodes' bytes, in the order asked for. Its own errors pass through the reader unchanged."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a stranger's file is looked at before it is refused."""

    chunks: int = 1 << 22
    """256 GiB in full chunks. Equal ones count as often as they occur."""
    depth: int = 16
    """A depth of 3 is reached beyond 160 GiB."""


DEFAULT_LIMITS = Limits()


async def fetch_verified(fetch: Fetch, cids: Sequence[Cid]) -> list[bytes]:
    """The bytes of nodes, each checked against its CID; equal ones are fetched once.

    Raises:
        ObjectCorruptError: a node is larger than nodes are, or does not match its CID.
    """
    distinct = list(dict.fromkeys(cids))
    nodes = await fetch(distinct)
    if len(nodes) != len(distinct):
        raise ObjectCorruptError(f"Asked for {len(distinct)} nodes and got {len(nodes)}.")
    for cid, node in zip(distinct, nodes, strict=True):
        if len(node) > MAX_NODE_BYTES:
            raise ObjectCorruptError(f"Node {cid} has {len(node)} bytes: more than a node has.")
        if not cid.names(node):
            raise ObjectCorruptError(f"Node {cid} does not match its CID.")
    if len(distinct) == len(cids):
        return nodes
    found = dict(zip(distinct, nodes, strict=True))
    return [found[cid] for cid in cids]


def check_root(root: Node) -> None:
    """Refuse what cannot be the root of a file.

    Raises:
        NotAFileError: it is the node of something else.
        ObjectCorruptError: its fields contradict each other.
    """
    if root.type is not NodeType.FILE:
        raise NotAFileError(f"The CID names {_KINDS[root.type]} and not a file.")
    depth, size, links = root.link_depth, root.size, len(root.links)
    if root.data is not None:
        sound = (depth, links) == (0, 0) and size == len(root.data)
    elif size is None or size == 0:
        sound = size == 0 and (depth, links) == (1, 0)
    else:
        sound = depth > 0 and 2 <= links <= size
    if not sound:
        raise ObjectCorruptError("The size, depth, links and data of the root do not agree.")


_KINDS = {
    NodeType.FILE_INLINK: "a part of a file",
    NodeType.FILE_CHUNK: "a part of a file",
    NodeType.FOLDER: "a folder",
    NodeType.FOLDER_INLINK: "a part of a folder",
    NodeType.METADATA: "metadata",
    NodeType.METADATA_INLINK: "a part of metadata",
    NodeType.METADATA_CHUNK: "a part of metadata",
}


class FileTree:
    """Finds the chunks of one file of two or more of them. Safe to share between readers."""

    def __init__(self, root: Node, fetch: Fetch, limits: Limits = DEFAULT_LIMITS) -> None:
        """``root`` has passed ``check_root``.

        Raises:
            ObjectCorruptError: the root alone says that the file is beyond the limits.
        """
        self._root = root
        self._fetch = fetch
        self._limits = limits
        self._layout: Layout | None = None
        self._path: dict[int, tuple[int, tuple[Cid, ...]]] = {}
        self._first_chunk: tuple[Cid, bytes] | None = None
        if root.link_depth > limits.depth:
            raise ObjectCorruptError(f"The file is {root.link_depth} nodes deep: too deep.")
        if (root.size or 0) > limits.chunks * MAX_NODE_BYTES:
            raise ObjectCorruptError(f"The file has {root.size} bytes: too many nodes.")

    async def layout(self) -> Layout:
        """Where everything is. The first call fetches the first node of each height."""
        if self._layout is None:
            layout = await self._find_layout()
            if layout.leaves > self._limits.chunks:
                raise ObjectCorruptError(f"The file has {layout.leaves} chunks: too many nodes.")
            _check_count(len(self._root.links), layout.links_of_root())
            for height, (index, links) in self._path.items():
                _check_count(len(links), layout.links_of(height, index))
            self._layout = layout
        return self._layout

    async def chunk_cids(self, first: int, count: int) -> tuple[Cid, ...]:
        """The CIDs of chunks from ``first`` on: ``count``, or fewer where their parent ends."""
        layout = await self.layout()
        links = self._root.links
        for height in range(layout.depth - 1, 0, -1):
            index = first // layout.fan_out**height
            held = self._path.get(height)
            if held is None or held[0] != index:
                below = await self._inlink(links[index % layout.fan_out], height)
                _check_count(len(below), layout.links_of(height, index))
                held = self._path[height] = (index, below)
            links = held[1]
        at = first % layout.fan_out
        return links[at : at + count]

    async def chunks(self, first: int, cids: Sequence[Cid]) -> list[memoryview]:
        """The data of chunks from ``first`` on, verified and of the sizes that the layout says."""
        layout = await self.layout()
        known = self._first_chunk
        if known is not None and all(cid == known[0] for cid in cids):
            nodes = [known[1]] * len(cids)
        else:
            nodes = await fetch_verified(self._fetch, cids)
        return [
            _data_of(node, layout.bytes_of_leaf(index)) for index, node in enumerate(nodes, first)
        ]

    async def _find_layout(self) -> Layout:
        """The shape that the root and the first node of each height tell; only they are checked."""
        root, links = self._root, self._root.links
        fan_out = len(links)
        for height in range(root.link_depth - 1, 0, -1):
            links = await self._inlink(links[0], height)
            self._path[height] = (0, links)
            fan_out = len(links)
        if len(root.links) > fan_out:  # and the root has at least two
            raise ObjectCorruptError("The file is deeper than its number of links needs.")
        node = (await fetch_verified(self._fetch, links[:1]))[0]
        self._first_chunk = (links[0], node)
        data = Node.decode(node).data or b""
        size = root.size or 0
        if not 0 < len(data) < size:
            raise ObjectCorruptError("The first chunk of the file is empty or all of it.")
        _data_of(node, len(data))
        return Layout(size, root.link_depth, fan_out, len(data))

    async def _inlink(self, cid: Cid, height: int) -> tuple[Cid, ...]:
        """The links of a FileInlink at ``height``; refuses any other node."""
        node = Node.decode((await fetch_verified(self._fetch, (cid,)))[0])
        links = node.links
        if node != Node(NodeType.FILE_INLINK, link_depth=height, size=len(links), links=links):
            raise ObjectCorruptError(f"Node {cid} is not a FileInlink of depth {height}.")
        return links


def _check_count(links: int, expected: int) -> None:
    if links != expected:
        message = f"A node has {links} links where the file's size asks for {expected}."
        raise ObjectCorruptError(message)


def _data_of(node: bytes, size_bytes: int) -> memoryview:
    """The data of a FileChunk that must have ``size_bytes``, uncopied."""
    head = chunk_head(size_bytes)
    if len(node) != len(head) + size_bytes or not node.startswith(head):
        raise ObjectCorruptError(f"A node is not a chunk of {size_bytes} bytes.")
    return memoryview(node)[len(head) :]
