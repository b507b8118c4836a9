"""Reads files from their DAGs: any range, in order, every byte verified before it is given."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from services.chain.dag.cid import Cid
from services.chain.dag.node import Node, UploadOptions
from services.chain.dag.prefetch import Prefetch
from services.chain.dag.tree import (
    DEFAULT_LIMITS,
    Fetch,
    FileTree,
    Limits,
    check_root,
    fetch_verified,
)
from services.chain.errors import RangeNotSatisfiableError

DEFAULT_WINDOW_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a file's root says of it."""

    size_bytes: int
    """Of the bytes as stored, which are the bytes that are read."""
    name: str | None
    """As its uploader chose it: any characters, path separators included. None: it has none."""
    upload_options: UploadOptions

    @property
    def compressed(self) -> bool:
        """Whether the bytes are recorded as compressed. The record can be wrong."""
        return self.upload_options.compression is not None

    @property
    def encrypted(self) -> bool:
        """Whether the bytes are recorded as encrypted."""
        return self.upload_options.encryption is not None


def stat(root: Node) -> FileInfo:
    """What a root says of its file.

    Raises:
        NotAFileError: it is a folder, metadata, or a part of something.
        ObjectCorruptError: its fields contradict each other.
    """
    check_root(root)
    return FileInfo(root.size or 0, root.name, root.upload_options or UploadOptions())


async def read_file(
    root: Cid,
    fetch: Fetch,
    offset: int = 0,
    length: int | None = None,
    window_bytes: int = DEFAULT_WINDOW_BYTES,
) -> AsyncGenerator[bytes, None]:
    """Give the bytes of a file from ``offset`` on, ``length`` of them at most; None: to the end.

    The same as ``FileReader.open`` and then ``read``, which see.
    """
    reader = await FileReader.open(root, fetch)
    async with aclosing(reader.read(offset, length, window_bytes)) as pieces:
        async for piece in pieces:
            yield piece


class FileReader:
    """One file whose root is known and sound."""

    def __init__(self, root: Node, fetch: Fetch, limits: Limits = DEFAULT_LIMITS) -> None:
        """Read the file of a root node that was verified already. Raises as ``open`` does."""
        self.info = stat(root)
        self._data = None if root.links else root.data or b""
        self._tree = FileTree(root, fetch, limits)

    @classmethod
    async def open(cls, root: Cid, fetch: Fetch, limits: Limits = DEFAULT_LIMITS) -> FileReader:
        """Fetch, verify and check a file's root.

        Raises:
            NotAFileError: the CID names a folder, metadata, or a part of something.
            ObjectCorruptError: the root is not a node, does not match, or breaks a limit.
        """
        raw = (await fetch_verified(fetch, (root,)))[0]
        return cls(Node.decode(raw), fetch, limits)

    async def read(
        self, offset: int = 0, length: int | None = None, window_bytes: int = DEFAULT_WINDOW_BYTES
    ) -> AsyncGenerator[bytes, None]:
        """Give the bytes of a range, a chunk at a time; close it when leaving it early.

        Parts of the tree outside the range are not fetched, but for the first node of each height,
        which tells the file's layout. ``window_bytes`` bounds what is read ahead.

        Raises:
            RangeNotSatisfiableError: the range starts beyond the end (at the end, it is empty).
            ObjectCorruptError: after bytes which are right, or before any.
            Exception: whatever ``fetch`` raises.
        """
        start, stop = self._clip(offset, length)
        if start == stop:
            return
        if self._data is not None:
            yield self._data[start:stop]
            return
        layout = await self._tree.layout()
        size = layout.chunk_bytes
        position = start // size * size
        ahead = Prefetch(self._tree, layout, start // size, -(-stop // size), window_bytes)
        try:
            while chunks := await ahead.next():
                for chunk in chunks:
                    yield bytes(chunk[max(start - position, 0) : stop - position])
                    position += size
        finally:
            await ahead.close()

    def _clip(self, offset: int, length: int | None) -> tuple[int, int]:
        """The range as its first byte and the one after its last."""
        size = self.info.size_bytes
        if offset < 0 or offset > size or (length is not None and length < 0):
            message = f"The range starts beyond the file's {size} bytes, or is negative."
            raise RangeNotSatisfiableError(message, metadata={"size_bytes": str(size)})
        return offset, size if length is None else min(offset + length, size)
