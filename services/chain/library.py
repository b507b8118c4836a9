"""Reads files of one network: finds nodes by the index, fetches them, and lets none pass unchecked.

A node that stands in a block comes from the chain. One that does not, but is on its way from here,
comes from the spool: it is the same node, by its hash, and is never called more settled than it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from mimetypes import MimeTypes

from services.chain.dag.cid import Cid
from services.chain.dag.node import Node
from services.chain.dag.reader import FileInfo, FileReader
from services.chain.errors import NetworkUnavailableError, ObjectNotFoundError
from services.chain.index import Index
from services.chain.networks.port import Finality, Network
from services.store.errors import StoreError

Spooled = Callable[[bytes], Awaitable[bytes | None]]
"""Gives a node that is on its way from here, verified; None when it is not."""

_Nodes = dict[bytes, bytes | Exception]
"""What a fetch brought, by digest; an exception where it could not be told."""

_DEFAULT_MEDIA_TYPE = "application/octet-stream"
# Without the machine's own lists, so that every replica guesses the same.
_MEDIA_TYPES = MimeTypes()


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A file that can be read."""

    cid: Cid
    info: FileInfo
    finality: Finality
    reader: FileReader

    @property
    def media_type(self) -> str:
        """Guessed from the name."""
        return _MEDIA_TYPES.guess_type(self.info.name or "")[0] or _DEFAULT_MEDIA_TYPE


class Library:
    """One network's files."""

    def __init__(self, network: Network, index: Index, spooled: Spooled) -> None:
        self._network = network
        self._index = index
        self._spooled = spooled
        self._coming: dict[bytes, asyncio.Task[_Nodes]] = {}
        """By digest, the fetch under way that brings it: identical requests share one."""

    async def open(self, cid: Cid) -> StoredObject:
        """A file by its root.

        Raises ``ObjectNotFoundError`` (it may come yet), ``ObjectCorruptError`` and
        ``NetworkUnavailableError``.
        """
        (raw,) = await self.fetch([cid])
        root = Node.decode(raw)
        reader = FileReader(root, self.fetch)
        finality = await self._finality([cid, *root.links])
        return StoredObject(cid, reader.info, finality, reader)

    async def fetch(self, cids: Sequence[Cid]) -> list[bytes]:
        """Nodes' bytes, each matching its CID. Raises as ``open`` does."""
        new = [cid.digest for cid in cids if cid.digest not in self._coming]
        if new:
            fetch = asyncio.create_task(self._bring(new))
            self._coming.update(dict.fromkeys(new, fetch))
            fetch.add_done_callback(lambda _: self._came(new))
        fetches = [self._coming[cid.digest] for cid in cids]
        # A reader that goes away does not take the fetch from the others.
        found = [await asyncio.shield(fetch) for fetch in fetches]
        return [self._take(cid, nodes) for cid, nodes in zip(cids, found, strict=True)]

    async def close(self) -> None:
        """Ends the fetches under way."""
        fetches = set(self._coming.values())
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)

    async def _bring(self, digests: Sequence[bytes]) -> _Nodes:
        """Nodes by digest, as far as they are to be had."""
        try:
            located = await self._index.locate(digests)
            entries = [at.entry for at in located.values()]
            fetched = await self._network.fetch(entries) if entries else []
        except (NetworkUnavailableError, StoreError) as error:
            failed: _Nodes = dict.fromkeys(digests, error)
            return failed | await self._from_spool(digests)
        nodes: _Nodes = {
            entry.digest: node
            for entry, node in zip(entries, fetched, strict=True)
            if node is not None
        }
        return nodes | await self._from_spool([d for d in digests if d not in nodes])

    async def _from_spool(self, digests: Sequence[bytes]) -> _Nodes:
        nodes = {digest: await self._spooled(digest) for digest in digests}
        return {digest: node for digest, node in nodes.items() if node is not None}

    def _came(self, digests: Sequence[bytes]) -> None:
        for digest in digests:
            del self._coming[digest]

    def _take(self, cid: Cid, nodes: _Nodes) -> bytes:
        node = nodes.get(cid.digest)
        if isinstance(node, Exception):
            raise node
        if node is None:
            raise ObjectNotFoundError(f"The network {self._network.name!r} has no node {cid} yet.")
        return node

    async def _finality(self, cids: Sequence[Cid]) -> Finality:
        """The least of several nodes': of the root and of those that it links to.

        Those are all nodes of a file up to 105 MB. A larger one published from here is in order,
        too: nodes go out before those that link to them.
        """
        digests = {cid.digest for cid in cids}
        located = await self._index.locate(digests)
        if len(located) < len(digests):
            return Finality.NONE
        return min(at.finality for at in located.values())
