"""Objects on their way into the cache: one fetch for each, however many ask.

The bytes go to a file that readers follow as it grows: each gets what has arrived, as a slice of
the file's pages, and waits only for what has not. When the fetch fails, readers get every byte that
arrived (all verified by the chain service) and then the error. When the disk fails, readers go on
without the cache. When its last reader leaves, a fetch goes on if half of the object is here
already, or a pin wants it; otherwise it stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from copy import copy

from services.edge.background import start
from services.edge.bans import Bans
from services.edge.cache.disk import DiskCache, Partial
from services.edge.objects import ObjectInfo, ObjectKey
from services.edge.origin import Origin
from services.process.logs import get_logger
from services.rpc.errors import DependencyUnavailableError, InternalError, ServiceError

log = get_logger(__name__)


class NotStoredError(Exception):
    """The disk does not take any more: what has not arrived is to be read past the cache."""


class Fill:
    """One object on its way in."""

    def __init__(self, key: ObjectKey, info: ObjectInfo, partial: Partial) -> None:
        self.key = key
        self.info = info
        self.partial = partial
        self.received = 0
        """How many bytes can be read."""
        self.readers = 0
        self.is_shared = False
        """Whether somebody reads it already, or has read it."""
        self.is_wanted = True
        """Whether it is to be kept when it is whole."""
        self.is_being_kept = False
        """Whether it is whole, and on its way into the disk tier."""
        self._failure: ServiceError | NotStoredError | None = None
        self._arrival = asyncio.Event()

    async def beyond(self, position: int) -> int:
        """Waits until there are bytes beyond ``position``; how far they reach.

        Raises what the fetch failed with, once there is nothing more to read; NotStoredError when
        that was the disk's fault.
        """
        while self.received <= position:
            if self._failure is not None:
                raise copy(self._failure)
            await self._arrival.wait()
        return self.received

    def advance(self, count: int) -> None:
        """Tells readers of ``count`` more bytes."""
        self.received += count
        self._wake()

    def fail(self, failure: ServiceError | NotStoredError) -> None:
        """Tells readers that no more will come; the first failure stands."""
        if self._failure is not None:
            return
        # Copies have no traceback, which would keep this object, and so the file, in memory.
        self._failure = copy(failure)
        self._wake()

    def _wake(self) -> None:
        arrival, self._arrival = self._arrival, asyncio.Event()
        arrival.set()


class Fills:
    """The objects on their way into one cache.

    Args:
        origin: where they come from.
        disk: where they go.
        bans: what is not fetched.
    """

    def __init__(self, origin: Origin, disk: DiskCache, bans: Bans) -> None:
        self._origin = origin
        self._disk = disk
        self._bans = bans
        self._fills: dict[str, Fill] = {}
        # Not in the fill: a failed task and what failed in it would keep each other in memory.
        self._tasks: dict[Fill, asyncio.Task[None]] = {}
        self._beginning: dict[str, asyncio.Task[Fill | None]] = {}

    def find(self, cid: str) -> Fill | None:
        """The fill of an object that is on its way."""
        return self._fills.get(cid)

    async def join(self, key: ObjectKey, info: ObjectInfo) -> Fill | None:
        """The fill of an object that has bytes, begun if need be.

        None when the cache has no room for the object, or got it whole in the meantime. Raises
        ObjectBannedError.
        """
        fill = self._fills.get(key.cid)
        if fill is not None:
            return fill
        beginning = self._beginning.get(key.cid)
        if beginning is None:
            beginning = self._beginning[key.cid] = start(self._begin(key, info))
            beginning.add_done_callback(lambda _: self._beginning.pop(key.cid, None))
        return await asyncio.shield(beginning)

    @contextmanager
    def reading(self, fill: Fill, *, pays: bool = True) -> Iterator[None]:
        """Counts a reader of ``fill``; may end the fetch when the last one leaves.

        It goes on from half, if that one ``pays`` for what it had.
        """
        fill.readers += 1
        try:
            yield
        finally:
            fill.readers -= 1
            has_half = 2 * fill.received >= fill.info.size_bytes
            worth_finishing = pays and fill.is_wanted and has_half
            if fill.readers == 0 and not worth_finishing:
                self._stop(fill)

    async def whole(self, key: ObjectKey, info: ObjectInfo) -> bool:
        """Waits until an object is whole in the cache; False when that has no room for it.

        Who gives up waiting pays for nothing, so the fetch ends, unless somebody else reads.
        Raises what the fetch fails with.
        """
        fill = await self.join(key, info)
        if fill is not None:
            with self.reading(fill, pays=False), suppress(NotStoredError):
                await fill.beyond(info.size_bytes - 1)
                if fill in self._tasks:
                    await asyncio.wait([self._tasks[fill]])
        return self._disk.info(key.cid) is not None

    async def disown(self, cid: str) -> bool:
        """Has an object that is on its way not be kept; its readers finish. Whether there was one.

        Who asks from now on has it fetched anew. One that is just being kept is in the disk tier
        when this returns.
        """
        fill = self._fills.get(cid)
        if fill is None:
            return False
        if fill.is_being_kept:
            await asyncio.wait([self._tasks[fill]])
            return True
        self._forget(fill)
        fill.is_wanted = False
        if fill.readers == 0:
            self._stop(fill)
        return True

    def end(self, cid: str, failure: ServiceError) -> None:
        """Ends a fetch; its readers get ``failure`` once they have read what arrived."""
        fill = self._fills.pop(cid, None)
        if fill is not None:
            fill.fail(failure)
            self._stop(fill)

    async def close(self) -> None:
        """Ends every fetch, those that were only begun too; what is not whole is thrown away."""
        self._origin.close()
        tasks = [*self._beginning.values(), *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(self, key: ObjectKey, info: ObjectInfo) -> Fill | None:
        if self._disk.info(key.cid) is not None:
            return None
        partial = await self._disk.begin(info)
        if partial is None:
            return None
        try:
            self._bans.check(key)
        except ServiceError:
            await self._disk.discard(partial)
            raise
        fill = self._fills[key.cid] = Fill(key, info, partial)
        task = self._tasks[fill] = start(self._run(fill))
        task.add_done_callback(lambda _: self._ended(fill))
        return fill

    def _ended(self, fill: Fill) -> None:
        del self._tasks[fill]
        self._forget(fill)

    def _stop(self, fill: Fill) -> None:
        self._forget(fill)
        if fill in self._tasks:
            self._tasks[fill].cancel()

    def _forget(self, fill: Fill) -> None:
        """From now on the object is fetched anew, unless it got into the cache."""
        if self._fills.get(fill.key.cid) is fill:
            del self._fills[fill.key.cid]

    async def _run(self, fill: Fill) -> None:
        try:
            async with aclosing(self._origin.read(fill.key, 0, fill.info.size_bytes)) as stream:
                async for data in stream:
                    await self._disk.append(fill.partial, data)
                    fill.advance(len(data))
            if fill.is_wanted:
                fill.is_being_kept = True
                final_on = {fill.key.network} if fill.info.finalized else set()
                await self._disk.keep(fill.partial, final_on)
            else:
                await self._disk.discard(fill.partial)
        except BaseException as error:
            await self._fail(fill, error)
            if not isinstance(error, Exception):
                raise

    async def _fail(self, fill: Fill, error: BaseException) -> None:
        self._forget(fill)
        if isinstance(error, OSError):
            fill.fail(NotStoredError())
            log.warning("fill_not_stored", object=str(fill.key), error=str(error))
        elif isinstance(error, ServiceError):
            fill.fail(error)
            log.warning("fill_failed", object=str(fill.key), reason=error.reason_name())
        elif isinstance(error, Exception):
            fill.fail(InternalError())
            log.error("fill_failed", object=str(fill.key), exc_info=error)
        else:
            fill.fail(DependencyUnavailableError("The transfer was broken off."))
        await self._disk.discard(fill.partial)
