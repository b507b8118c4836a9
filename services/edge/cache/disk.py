"""The disk tier: whole objects in files, bounded in bytes and in number.

Owns which files there are, the room that they take, and what is forgotten when room is needed
(never what is pinned or being read). Files on their way in count from the start, so the bound holds
at any moment. After an unclean stop a file is checked against its SHA-256 before it is served.

A disk that is full or broken costs hits, never a delivery: what cannot be stored is not, and what
cannot be read is forgotten.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from weakref import ReferenceType, WeakValueDictionary, ref

from services.edge.cache.catalog import Catalog, CatalogError, StoredObject
from services.edge.cache.directory import CacheDirectory
from services.edge.cache.files import (
    PASSING,
    Mapping,
    PartialFile,
    open_mapping,
    place_of,
    read_ahead,
    resident,
    sweep,
)
from services.edge.cache.loans import Loans
from services.edge.cache.order import WorthOrder
from services.edge.objects import ObjectInfo, ObjectKey
from services.process.logs import get_logger

T = TypeVar("T")

log = get_logger(__name__)

_THREADS = 4
_KEPT_OPEN = 64  # files that stay mapped after their last reader


@dataclass(frozen=True, slots=True)
class Partial:
    """An object on its way into the tier."""

    info: ObjectInfo
    file: PartialFile

    @property
    def mapping(self) -> Mapping:
        """The growing file."""
        return self.file.mapping


class DiskCache:
    """Used from one event loop; what blocks runs on a few threads of its own.

    Args:
        directory: where the files are.
        catalog: what is known of them; opened and closed here.
        max_bytes: the bound of all files, those on their way in too.
        max_objects: the bound of their number.
    """

    def __init__(
        self, directory: Path, catalog: Catalog, *, max_bytes: int, max_objects: int
    ) -> None:
        self._directory = CacheDirectory(directory)
        self._catalog = catalog
        self._max_bytes = max_bytes
        self._max_objects = max_objects
        self._pool = ThreadPoolExecutor(_THREADS, "disk")
        self._stored: dict[str, StoredObject] = {}
        self._unchecked: set[str] = set()
        self._order = WorthOrder()
        self._pinned: Collection[str] = ()
        self._whole_bytes = 0
        self._partial_bytes = 0
        self._partial_count = 0
        self._partial_files: set[PartialFile] = set()
        self._leaving: list[tuple[ReferenceType[Mapping], int]] = []
        self._mappings: WeakValueDictionary[str, Mapping] = WeakValueDictionary()
        self._kept_open: OrderedDict[str, Mapping] = OrderedDict()
        self._opening: dict[str, asyncio.Future[Mapping | None]] = {}
        self._room = asyncio.Lock()
        self.loans = Loans()
        """What other programs send of it."""

    async def open(self) -> None:
        """Reads the catalog and removes what is not in it.

        Raises CacheInUseError, CacheDirectoryError, CatalogError, CatalogVersionError.
        """
        await self._run(self._directory.take)
        clean = await self._catalog.open()
        stored = await self._catalog.objects()
        sizes = await self._run(sweep, self._directory.objects, {each.file for each in stored})
        for each in stored:
            if sizes.get(each.file) == each.info.size_bytes:
                self._add(each)
            else:
                await self._catalog.remove_object(each)
        if not clean:
            self._unchecked = set(self._stored)
            log.warning("cache_unclean_stop", objects_to_check=len(self._unchecked))

    async def close(self) -> None:
        """Closes the catalog: cleanly, so nothing needs to be checked again.

        When even that cannot be written, everything will be.
        """
        try:
            await self._catalog.close(clean=not self._unchecked)
        except CatalogError as error:
            log.warning("cache_catalog_unwritable", error=str(error))
        self._kept_open.clear()
        self._pool.shutdown()
        self._directory.release()

    @property
    def used_bytes(self) -> int:
        """The room that all files take now."""
        self._leaving = [(file, size) for file, size in self._leaving if file() is not None]
        return self._whole_bytes + self._partial_bytes + sum(size for _, size in self._leaving)

    def __len__(self) -> int:
        """How many objects are here or on their way in."""
        return len(self._stored) + self._partial_count

    def spare(self, pinned: Collection[str]) -> None:
        """Says which CIDs are never forgotten; ``pinned`` may change later."""
        self._pinned = pinned

    def info(self, cid: str) -> ObjectInfo | None:
        """What the tier knows of an object that it holds whole."""
        stored = self._stored.get(cid)
        return stored.info if stored else None

    def sha256(self, cid: str) -> bytes | None:
        """Of the bytes of an object that is held whole."""
        stored = self._stored.get(cid)
        return stored.sha256 if stored else None

    def stored(self, cid: str) -> StoredObject | None:
        """All that it knows of it; another one as soon as anything of it changes."""
        return self._stored.get(cid)

    def final_on(self, key: ObjectKey) -> bool:
        """Whether an object is held here, and was seen to be final on its network."""
        stored = self._stored.get(key.cid)
        return stored is not None and key.network in stored.final_on

    async def mark_final(self, key: ObjectKey) -> None:
        """Notes that an object is final on a network, if it is held here."""
        stored = self._stored.get(key.cid)
        if stored is not None and key.network not in stored.final_on:
            self._stored[key.cid] = replace(stored, final_on=stored.final_on | {key.network})
            try:
                await self._catalog.mark_final(key)
            except CatalogError as error:  # the next process asks the chain once more
                log.warning("cache_catalog_unwritable", error=str(error))

    def use(self, cid: str) -> None:
        """Notes a hit, if the object is here: what is used is forgotten last."""
        if cid in self._stored:
            self._order.use(cid)

    def file_of(self, cid: str) -> str | None:
        """An object's file, under ``objects/``, for others to open; a hit, like any.

        None when it is not here, or was not checked yet after an unclean stop.
        """
        stored = self._stored.get(cid)
        if stored is None or cid in self._unchecked:
            return None
        self._order.use(cid)
        return place_of(stored.file)

    async def check(self, cid: str) -> None:
        """Forgets an object whose file is gone: somebody removed it."""
        stored = self._stored.get(cid)
        if stored is None:
            return
        path = self._directory.path_of(stored.file)
        if not await self._run(path.exists) and self._stored.get(cid) is stored:
            log.error("cache_file_gone", cid=cid)
            await self._drop(cid)

    async def mapping(self, cid: str) -> Mapping | None:
        """An object's bytes; None when it is not here, or turns out to be damaged."""
        found = self.mapped(cid)
        if found is not None or cid not in self._stored:
            return found
        self._order.use(cid)
        found = await self._opened(cid)
        if found is not None:
            self._keep_open(cid, found)
        return found

    def mapped(self, cid: str) -> Mapping | None:
        """The same of a file that is open; None when it is not. No I/O."""
        found = self._mappings.get(cid)
        if found is None or cid not in self._stored:
            return None
        self._order.use(cid)
        self._keep_open(cid, found)
        return found

    async def in_memory(self, mapping: Mapping, offset: int, length: int) -> None:
        """Returns when a part can be touched without waiting. Raises OSError: it must not be."""
        if not resident(mapping, offset, length):
            await self._run(read_ahead, mapping, offset)

    async def begin(self, info: ObjectInfo) -> Partial | None:
        """Room for an object on its way in; None when there is none to be had.

        Every partial object ends with ``keep`` or ``discard``.
        """
        async with self._room:
            try:
                if not await self._make_room(info.size_bytes):
                    return None
            except OSError as error:
                log.warning("cache_no_room", error=str(error), size_bytes=info.size_bytes)
                return None
            self._partial_bytes += info.size_bytes
            self._partial_count += 1
        making = asyncio.ensure_future(
            self._run(PartialFile, self._directory.partials, info.size_bytes)
        )
        try:
            file = await asyncio.shield(making)
            self._partial_files.add(file)
            return Partial(info, file)
        except OSError as error:
            self._end_partial(info)
            log.warning("cache_no_room", error=str(error), size_bytes=info.size_bytes)
            return None
        except asyncio.CancelledError:
            self._end_partial(info)
            with suppress(OSError):
                (await making).discard()
            raise

    async def append(self, partial: Partial, data: bytes) -> None:
        """Writes the next bytes of a partial object. Raises OSError."""
        await self._run(partial.file.append, data)

    async def keep(self, partial: Partial, final_on: Collection[str]) -> None:
        """Turns a partial object that has all its bytes into a stored one. Raises OSError."""
        sha256 = await self._run(partial.file.seal, self._directory.objects)
        stored = StoredObject(partial.info, partial.file.name, sha256, frozenset(final_on))
        await self._catalog.add_object(stored)
        self._partial_files.discard(partial.file)
        self._end_partial(partial.info)
        self._add(stored)
        self._mappings[partial.info.cid] = partial.mapping

    async def discard(self, partial: Partial) -> None:
        """Removes a partial object; its readers keep what they have, and its room until then.

        Safe to repeat, when it was broken off.
        """
        if partial.file in self._partial_files:
            self._partial_files.discard(partial.file)
            self._leaving.append((ref(partial.mapping), partial.info.size_bytes))
            self._end_partial(partial.info)
        try:
            await self._run(partial.file.discard)
        except OSError as error:  # the next start sweeps it away
            log.warning("cache_file_stays", error=str(error))

    async def drop(self, cid: str) -> bool:
        """Forgets an object now, pinned or not; whether it was here. Its readers finish.

        Raises OSError when its file cannot be removed: it is not served any more all the same.
        """
        if cid not in self._stored:
            return False
        await self._drop(cid)
        return True

    async def lose(self, cid: str) -> None:
        """Forgets an object whose file is damaged or cannot be read; to be fetched again."""
        log.error("cache_file_damaged", cid=cid)
        try:
            await self.drop(cid)
        except OSError as error:
            log.warning("cache_file_stays", error=str(error))

    def cids(self) -> list[str]:
        """What is here whole now."""
        return list(self._stored)

    def path_of(self, stored: StoredObject) -> Path:
        """The place of its file, which may be gone by now."""
        return self._directory.path_of(stored.file)

    def passed(self, stored: StoredObject) -> None:
        """Notes that an object's file was read, and is what was stored."""
        if self._stored.get(stored.info.cid) is stored:
            self._unchecked.discard(stored.info.cid)

    def _end_partial(self, info: ObjectInfo) -> None:
        self._partial_bytes -= info.size_bytes
        self._partial_count -= 1

    def _add(self, stored: StoredObject) -> None:
        self._stored[stored.info.cid] = stored
        self._order.add(stored.info.cid, stored.info.size_bytes)
        self._whole_bytes += stored.info.size_bytes

    def _keep_open(self, cid: str, mapping: Mapping) -> None:
        self._kept_open[cid] = mapping
        self._kept_open.move_to_end(cid)
        if len(self._kept_open) > _KEPT_OPEN:
            self._kept_open.popitem(last=False)

    async def _opened(self, cid: str) -> Mapping | None:
        """Opens a file once, however many ask at the same time."""
        opening = self._opening.get(cid)
        if opening is None:
            opening = self._opening[cid] = asyncio.ensure_future(self._open_file(cid))
            opening.add_done_callback(lambda _: self._opening.pop(cid, None))
        return await asyncio.shield(opening)

    async def _open_file(self, cid: str) -> Mapping | None:
        stored = self._stored[cid]
        sha256 = stored.sha256 if cid in self._unchecked else None
        path, size_bytes = self._directory.path_of(stored.file), stored.info.size_bytes
        mapping = None
        try:
            mapping = await self._run(open_mapping, path, size_bytes, sha256)
        except OSError as error:
            log.warning("cache_file_unreadable", cid=cid, error=str(error))
            if error.errno in PASSING:
                return None
        if self._stored.get(cid) is not stored:
            return None
        if mapping is None:
            await self.lose(cid)
            return None
        self._unchecked.discard(cid)
        self._mappings[cid] = mapping
        return mapping

    async def _make_room(self, size_bytes: int) -> bool:
        if size_bytes > self._max_bytes:
            return False
        while (
            self.used_bytes + size_bytes > self._max_bytes
            or len(self._stored) + self._partial_count >= self._max_objects
        ):
            victim = self._order.victim(self._is_spared)
            if victim is None:
                return False
            await self._drop(victim)
        return True

    def _is_spared(self, cid: str) -> bool:
        if cid in self._pinned or cid in self.loans:
            return True
        self._kept_open.pop(cid, None)
        return cid in self._mappings or cid in self._opening

    async def _drop(self, cid: str) -> None:
        stored = self._stored.pop(cid)
        self._order.discard(cid)
        self._unchecked.discard(cid)
        self._kept_open.pop(cid, None)
        path = self._directory.path_of(stored.file)
        await self._run(path.unlink, True)  # noqa: FBT003 (missing_ok; executors take no keywords)
        mapping = self._mappings.pop(cid, None)
        if mapping is not None:  # it is being read: its room is free when that ends
            self._leaving.append((ref(mapping), stored.info.size_bytes))
        self._whole_bytes -= stored.info.size_bytes
        try:
            await self._catalog.remove_object(stored)
        except CatalogError as error:  # the next start sees that there is no file
            log.warning("cache_catalog_unwritable", error=str(error))

    async def _run(self, function: Callable[..., T], *values: object) -> T:
        """Runs a blocking function on a thread; returns only when it has ended, even cancelled."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, function, *values)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            with suppress(Exception):
                await asyncio.wait([future])
            raise
        finally:
            del future  # it holds what failed, which holds this frame, and so the file
