"""What is known of an object, and whether it is final: asked as seldom as honesty allows.

The bytes of a CID never change, so what a root node says is kept. Finality is another matter: until
the chain calls an object final, a reorganisation may drop it, so the chain service is asked again
every few seconds; what it no longer has is not served as if it had. Once final, always final.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

from services.edge.background import start
from services.edge.bans import Bans
from services.edge.cache.disk import DiskCache
from services.edge.cache.memory import MokaCache
from services.edge.objects import ObjectInfo, ObjectKey
from services.edge.origin import WORTH_A_RETRY, Origin

_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class _Known:
    info: ObjectInfo
    asked_at: float


class ObjectLookup:
    """Answers from the disk tier, from memory, and else from the chain service.

    Args:
        origin: the chain service.
        disk: knows what is final among what it holds.
        bans: what is not served at all.
        recheck_s: how long an answer that is not final is believed.
    """

    def __init__(self, origin: Origin, disk: DiskCache, bans: Bans, *, recheck_s: float) -> None:
        self._origin = origin
        self._bans = bans
        self._disk = disk
        self.sha256 = disk.sha256
        """Of an object's bytes, when this edge has them all."""
        self._recheck_s = recheck_s
        self._known = MokaCache(_REMEMBERED)
        self._asking: dict[ObjectKey, asyncio.Task[ObjectInfo]] = {}

    async def find(self, key: ObjectKey, *, ahead: bool = False) -> ObjectInfo:
        """What is known of an object; with ``ahead`` its bytes are wanted next, if it is not here.

        Raises OBJECT_NOT_FOUND when it is not on the chain (any more), and the chain service's
        other errors; but one seen a while ago and held here is still served, as not final, while
        the chain service cannot be reached. Raises ObjectBannedError.
        """
        self._bans.check(key)
        found = self.recall(key)
        if found is not None:
            return found
        try:
            return await self._ask(key, ahead=ahead)
        except WORTH_A_RETRY:
            known: _Known | None = self._known.peek(key)
            if known is None or self._disk.info(key.cid) is None:
                raise
            return known.info

    def recall(self, key: ObjectKey) -> ObjectInfo | None:
        """The same as far as it need not be asked for; None when it must. No I/O."""
        if self._bans.has(key):
            return None
        stored = self._disk.stored(key.cid)
        if stored is not None and key.network in stored.final_on:
            return stored.info if stored.info.finalized else stored.info.standing(finalized=True)
        known: _Known | None = self._known.peek(key)
        if known is not None and (
            known.info.finalized or time.monotonic() - known.asked_at < self._recheck_s
        ):
            return known.info
        return None

    def check(self, key: ObjectKey) -> None:
        """Raises ObjectBannedError for what was banned since it was found."""
        self._bans.check(key)

    async def _ask(self, key: ObjectKey, *, ahead: bool) -> ObjectInfo:
        """One question at a time for each object, however many wait for its answer."""
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = start(self._stat(key, ahead=ahead))
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(asking)

    async def _stat(self, key: ObjectKey, *, ahead: bool) -> ObjectInfo:
        ahead = ahead and self._disk.info(key.cid) is None
        asked_at = time.monotonic()
        try:
            info = replace(await self._origin.stat(key, ahead=ahead), seen_at=asked_at)
        except WORTH_A_RETRY:
            raise
        except Exception:
            await self._known.delete(key)
            raise
        await self._known.set(key, _Known(info, asked_at))
        if info.finalized:
            await self._disk.mark_final(key)
        return info
