"""What an operator forbids this edge to serve: 451 (RFC 7725), until the ban is lifted.

A ban names an object by its CID, so it holds for the bytes on every network; the network says where
they were found. Bans are durable, and known here without asking anybody.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from services.edge.cache.catalog import Catalog, Statement, told_to_callers
from services.edge.errors import BanNotFoundError, ObjectBannedError
from services.edge.objects import ObjectKey

_PUT = "INSERT OR REPLACE INTO bans (cid, network, reason, time_s) VALUES (?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Ban:
    """An object that is not served here."""

    key: ObjectKey
    reason: str
    """Why, for those who ask for it; may be empty."""
    time_s: float
    """Since when: Unix time, in s."""


class Bans:
    """The bans of one edge.

    Args:
        catalog: where they are kept.
        blocked_by: the URL of who blocks, for the problem's Link; empty for none.
    """

    def __init__(self, catalog: Catalog, blocked_by: str = "") -> None:
        self._catalog = catalog
        self._blocked_by = blocked_by
        self._bans: dict[str, Ban] = {}
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        """Reads the bans. Raises CatalogError."""
        rows = await self._catalog.read(
            "SELECT network, cid, reason, time_s FROM bans ORDER BY time_s"
        )
        for network, cid, reason, time_s in rows:
            self._bans[cid] = Ban(ObjectKey(network, cid), reason, time_s)

    def has(self, key: ObjectKey) -> bool:
        """Whether an object is banned."""
        return key.cid in self._bans

    def check(self, key: ObjectKey) -> None:
        """Raises ObjectBannedError for what is banned. Costs a look-up in a dictionary."""
        ban = self._bans.get(key.cid)
        if ban is not None:
            raise self.refusal(ban)

    def refusal(self, ban: Ban) -> ObjectBannedError:
        """What is answered instead of a banned object."""
        metadata = {"blocked_by": self._blocked_by} if self._blocked_by else {}
        return ObjectBannedError(ban.reason, metadata=metadata)

    def all(self) -> list[Ban]:
        """The bans, the oldest first."""
        return sorted(self._bans.values(), key=lambda ban: ban.time_s)

    def find(self, key: ObjectKey) -> Ban:
        """The ban of an object. Raises BanNotFoundError."""
        ban = self._bans.get(key.cid)
        if ban is None:
            raise BanNotFoundError
        return ban

    async def add(self, key: ObjectKey, reason: str) -> tuple[Ban, bool]:
        """Bans an object from now on; the ban, and whether it is new.

        Idempotent: one that is banned already keeps its time, and gets the new reason. Durable when
        this returns. Raises StoreUnavailableError: the object is banned until the next start then.
        """
        async with self._changing:
            known = self._bans.get(key.cid)
            ban = Ban(key, reason, known.time_s if known else time.time())
            self._bans[key.cid] = ban  # first: nothing is fetched any more while it is written
            await self._record((_PUT, key.cid, key.network, reason, ban.time_s))
        return ban, known is None

    async def lift(self, key: ObjectKey) -> None:
        """Lets an object be served again. Raises BanNotFoundError, StoreUnavailableError."""
        async with self._changing:
            self.find(key)
            await self._record(("DELETE FROM bans WHERE cid = ?", key.cid))
            del self._bans[key.cid]

    async def _record(self, statement: Statement) -> None:
        with told_to_callers("The ban"):
            await self._catalog.change(statement, durable=True)
