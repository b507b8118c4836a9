"""Where a download's bytes come from, and how they leave: slices that cost no copy.

A reader that stalls holds a slice of a file's pages, which all readers share, not a copy of the
object: 50 stalled readers of 8 MiB need no more memory than one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing, suppress
from typing import Protocol

from services.edge.cache.disk import DiskCache
from services.edge.cache.files import Mapping, resident
from services.edge.cache.memory import MokaCache
from services.edge.fill import Fill, Fills, NotStoredError
from services.edge.objects import ObjectInfo, ObjectKey
from services.edge.origin import Origin
from services.rpc.errors import ServiceError

SLICE_BYTES = 256 * 1024
"""Measured best on this kind of machine; see docs/edge.md."""

Piece = bytes | memoryview


class Source(Protocol):
    """A place that has an object's bytes, or gets them."""

    detail: str
    """How it is called in Cache-Status."""

    def pieces(self, first: int, length: int) -> AsyncGenerator[Piece]:
        """The bytes of a part, in order, at most SLICE_BYTES at a time."""


class WholeSource(Source, Protocol):
    """A place that has all of an object."""

    def at_once(self, first: int, length: int) -> Piece | None:
        """These bytes, if they can be touched without waiting. No I/O."""

    async def ready(self, first: int, length: int) -> None:
        """Returns when they can. Raises OSError when they cannot be read."""


class MemorySource:
    """An object in the memory tier."""

    detail = "memory"

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def pieces(self, first: int, length: int) -> AsyncGenerator[Piece]:
        """See Source."""
        view, end = memoryview(self._data), first + length
        for position in range(first, end, SLICE_BYTES):
            yield view[position : min(position + SLICE_BYTES, end)]

    def at_once(self, first: int, length: int) -> Piece:
        """See WholeSource."""
        if length == len(self._data):
            return self._data
        return memoryview(self._data)[first : first + length]

    async def ready(self, first: int, length: int) -> None:
        """See WholeSource."""


class DiskSource:
    """An object in the disk tier. What the disk cannot read is forgotten, and read past it."""

    detail = "disk"

    def __init__(self, mapping: Mapping, disk: DiskCache, cid: str, past: Source) -> None:
        self._mapping = mapping
        self._disk = disk
        self._cid = cid
        self._past = past
        self._instead = (0, b"")
        """Where a part begins that the disk could not read, and its bytes."""

    async def pieces(self, first: int, length: int) -> AsyncGenerator[Piece]:
        """See Source."""
        view, position, end = memoryview(self._mapping), first, first + length
        with suppress(OSError):
            while position < end:
                size = min(SLICE_BYTES, end - position)
                await self.touch(position, size)
                yield view[position : position + size]
                position += size
        async with aclosing(self._past.pieces(position, end - position)) as rest:
            async for piece in rest:
                yield piece

    def at_once(self, first: int, length: int) -> Piece | None:
        """See WholeSource."""
        start, data = self._instead
        if start <= first and first + length <= start + len(data):
            return data[first - start : first - start + length]
        if not resident(self._mapping, first, length):
            return None
        return memoryview(self._mapping)[first : first + length]

    async def ready(self, first: int, length: int) -> None:
        """See WholeSource."""
        try:
            await self.touch(first, length)
        except OSError as failure:
            try:
                parts = [bytes(piece) async for piece in self._past.pieces(first, length)]
            except ServiceError:
                raise failure from None
            self._instead = first, b"".join(parts)

    async def touch(self, first: int, length: int) -> None:
        """Returns when the disk has read these bytes. Raises OSError when it cannot."""
        try:
            await self._disk.in_memory(self._mapping, first, length)
        except OSError:
            await self._disk.lose(self._cid)
            raise


class FillSource:
    """An object on its way into the cache: what has arrived, as it arrives."""

    def __init__(self, fill: Fill, fills: Fills, detail: str, past: Source) -> None:
        self.detail = detail
        self._fill = fill
        self._fills = fills
        self._past = past

    def in_use(self) -> AbstractContextManager[None]:
        """Keeps the fetch going between two takings of pieces."""
        return self._fills.reading(self._fill)

    async def pieces(self, first: int, length: int) -> AsyncGenerator[Piece]:
        """See Source. From where the disk fails, the bytes come past the cache."""
        position, end = first, first + length
        view = memoryview(self._fill.partial.mapping)
        with self._fills.reading(self._fill), suppress(NotStoredError):
            while position < end:
                reached = await self._fill.beyond(position)
                size = min(SLICE_BYTES, end - position, reached - position)
                yield view[position : position + size]
                position += size
        async with aclosing(self._past.pieces(position, end - position)) as rest:
            async for piece in rest:
                yield piece


class OriginSource:
    """A part that does not go into the cache."""

    def __init__(self, origin: Origin, key: ObjectKey, detail: str) -> None:
        self.detail = detail
        self._origin = origin
        self._key = key

    def pieces(self, first: int, length: int) -> AsyncGenerator[Piece]:
        """See Source."""
        return self._origin.read(self._key, first, length)


class Sources:
    """Finds the nearest source of an object.

    Args:
        memory: the memory tier.
        disk: the disk tier.
        fills: what is on its way into it.
        origin: the chain service.
        memory_object_bytes: larger objects stay out of the memory tier.
        range_gap_bytes: a part that starts this far beyond what has arrived is read by itself.
    """

    def __init__(
        self,
        memory: MokaCache,
        disk: DiskCache,
        fills: Fills,
        origin: Origin,
        *,
        memory_object_bytes: int,
        range_gap_bytes: int,
    ) -> None:
        self._memory = memory
        self._disk = disk
        self._fills = fills
        self._origin = origin
        self._memory_object_bytes = memory_object_bytes
        self._range_gap_bytes = range_gap_bytes

    async def held(self, key: ObjectKey, info: ObjectInfo) -> Source | None:
        """An object that is whole in the cache; None when it is not (a miss)."""
        source = self.at_hand(key, info)
        if source is not None:
            return source
        mapping = await self._disk.mapping(info.cid)
        if mapping is None:
            return None
        source = self._on_disk(key, mapping)
        if info.size_bytes <= self._memory_object_bytes:
            try:
                await source.touch(0, info.size_bytes)
            except OSError:
                return None
            if self._disk.mapped(info.cid) is mapping:  # not dropped meanwhile
                self._memory.put(info.cid, mapping[:])
        return source

    def at_hand(self, key: ObjectKey, info: ObjectInfo) -> WholeSource | None:
        """The same as far as nothing must be waited for; None when something must. No I/O."""
        data: bytes | None = self._memory.peek(info.cid)
        if data is not None:
            self._disk.use(info.cid)
            return MemorySource(data)
        mapping = self._disk.mapped(info.cid)
        if mapping is None:
            return None
        if info.size_bytes <= self._memory_object_bytes:
            if not resident(mapping, 0, info.size_bytes):
                return None
            self._memory.put(info.cid, mapping[:])
        return self._on_disk(key, mapping)

    async def fetched(self, key: ObjectKey, info: ObjectInfo, first: int) -> Source:
        """An object that was not in the cache: fetched into it, or past it.

        Several that ask for one object share its fetch. A part that begins far beyond what has
        arrived is read by itself, and so is an object that finds no room.
        """
        fill = self._fills.find(key.cid)
        if first - (fill.received if fill else 0) > self._range_gap_bytes:
            return OriginSource(self._origin, key, "bypass")
        fill = fill or await self._fills.join(key, info)
        if fill is not None:
            detail = "collapsed" if fill.is_shared else "stored"
            fill.is_shared = True
            return FillSource(fill, self._fills, detail, self._past(key))
        return await self.held(key, info) or OriginSource(self._origin, key, "no-room")

    async def nearest(self, key: ObjectKey, info: ObjectInfo, first: int) -> Source:
        """An object as near as it is now: held, else fetched."""
        return await self.held(key, info) or await self.fetched(key, info, first)

    def _on_disk(self, key: ObjectKey, mapping: Mapping) -> DiskSource:
        return DiskSource(mapping, self._disk, key.cid, self._past(key))

    def _past(self, key: ObjectKey) -> OriginSource:
        return OriginSource(self._origin, key, "bypass")
