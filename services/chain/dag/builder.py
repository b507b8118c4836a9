"""Writes a file as a DAG while its bytes arrive, node for node as ``@autonomys/auto-dag-data``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from services.chain.dag.cid import Cid
from services.chain.dag.node import (
    MAX_LINKS,
    MAX_NODE_BYTES,
    NODE_RESERVE_BYTES,
    Node,
    NodeType,
    UploadOptions,
    encode_chunk,
)
from services.chain.errors import NodeInvalidError
from services.rpc.errors import InvalidArgumentError

NO_OPTIONS = UploadOptions()
"""Neither compressed nor encrypted; a root records even that, as an empty field."""


class FileBuilder:
    """Turns bytes into nodes. Holds at most one chunk, and a node's links for each level.

    Give the bytes to ``feed`` in pieces of any size, then call ``finish``; take every node that
    each of them gives before the next call. A node comes after all that it links to, so the root
    is the last. Equal chunks are the same node and come as often as they occur.

    Raises:
        InvalidArgumentError: the name is longer than 255 UTF-16 units, or not valid Unicode.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        upload_options: UploadOptions = NO_OPTIONS,
        max_node_bytes: int = MAX_NODE_BYTES,
        max_links: int = MAX_LINKS,
    ) -> None:
        """Start a file. ``name`` is part of what the CID names; None and empty are not the same.

        ``upload_options`` are recorded and not acted upon. The limits are for tests of deep trees
        of few bytes; other limits than the format's give other CIDs.
        """
        self._name = name
        self._upload_options = upload_options
        self._chunk_bytes = max_node_bytes - NODE_RESERVE_BYTES
        self._max_links = max_links
        self._pending = bytearray()
        self._levels: list[list[Cid]] = []
        self._size = 0
        self._busy = False
        self._root: Cid | None = None
        if self._chunk_bytes < 1 or max_links < 2:
            raise ValueError("a node needs room for a byte of data and for two links")
        _encode_root(Node(NodeType.FILE, name=name))

    @property
    def size(self) -> int:
        """How many bytes have been fed."""
        return self._size

    @property
    def root(self) -> Cid:
        """The file's CID, once every node of ``finish`` has been taken."""
        if self._root is None:
            raise RuntimeError("the file has no root before its last node is taken")
        return self._root

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[tuple[Cid, bytes]]:
        """Take more bytes of the file; gives the nodes that they complete.

        ``data`` must not change before the last of these nodes is taken.
        """
        self._begin()
        self._size += len(data)
        return self._feed(memoryview(data))

    def finish(self) -> Iterator[tuple[Cid, bytes]]:
        """End the file; gives the remaining nodes, the root last.

        Raises:
            InvalidArgumentError: with so long a name, the last node would be too large.
        """
        self._begin()
        return self._finish()

    def _begin(self) -> None:
        if self._busy:
            raise RuntimeError("the file is finished, or not every node of the last call was taken")
        self._busy = True

    def _feed(self, data: memoryview) -> Iterator[tuple[Cid, bytes]]:
        # A full chunk is written only when another byte follows: a file of one chunk is one node.
        size, position = self._chunk_bytes, 0
        if self._pending:
            position = size - len(self._pending)
            self._pending += data[:position]
            if position < len(data):
                yield from self._leaf(self._pending)
                self._pending.clear()
        while len(data) - position > size:
            yield from self._leaf(data[position : position + size])
            position += size
        self._pending += data[position:]
        self._busy = False

    def _finish(self) -> Iterator[tuple[Cid, bytes]]:
        root = Node(
            NodeType.FILE, size=self._size, name=self._name, upload_options=self._upload_options
        )
        if not self._levels and self._pending:
            root = replace(root, data=bytes(self._pending))
        elif not self._levels:
            root = replace(root, link_depth=1)
        else:
            yield from self._leaf(self._pending)
            yield from self._join_levels()
            root = replace(root, link_depth=len(self._levels), links=tuple(self._levels[-1]))
        raw = _encode_root(root)
        self._root = Cid.of(raw)
        yield self._root, raw

    def _leaf(self, data: bytearray | memoryview) -> Iterator[tuple[Cid, bytes]]:
        raw = encode_chunk(data)
        cid = Cid.of(raw)
        yield cid, raw
        yield from self._link(0, cid)

    def _link(self, level: int, cid: Cid) -> Iterator[tuple[Cid, bytes]]:
        """Note that ``cid`` is the next node of a level; makes room first when it is full."""
        if level == len(self._levels):
            self._levels.append([])
        if len(self._levels[level]) == self._max_links:
            yield from self._inlink(level)
        self._levels[level].append(cid)

    def _inlink(self, level: int) -> Iterator[tuple[Cid, bytes]]:
        """Put the links that a level holds into a FileInlink, and link that one level up."""
        links = tuple(self._levels[level])
        self._levels[level].clear()
        node = Node(NodeType.FILE_INLINK, link_depth=level + 1, size=len(links), links=links)
        raw = node.encode()
        cid = Cid.of(raw)
        yield cid, raw
        yield from self._link(level + 1, cid)

    def _join_levels(self) -> Iterator[tuple[Cid, bytes]]:
        """Bring what every level still holds to the highest, which becomes the root's links."""
        level = 0
        while level + 1 < len(self._levels):  # a full level above may add one more
            yield from self._inlink(level)
            level += 1


def _encode_root(root: Node) -> bytes:
    """The root's bytes. All in it that can break a limit is the name that the caller chose."""
    try:
        return root.encode()
    except NodeInvalidError as error:
        message = f"The file cannot have this name. {error}"
        raise InvalidArgumentError(message, violations={"name": str(error)}) from None
