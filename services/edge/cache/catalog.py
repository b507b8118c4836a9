"""What must survive a restart: which files are whole, what is final, pins, bans and pin requests.

One SQLite database in WAL mode on one thread of its own. Losing the last rows of ``objects`` costs
a fetch, so those are not synced; pins are paid for and are.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from services.edge.cache.schema import VERSIONS
from services.edge.objects import ObjectInfo, ObjectKey
from services.process.logs import get_logger
from services.rpc.errors import StoreUnavailableError

log = get_logger(__name__)

T = TypeVar("T")

_FORGET_FINALITY = """
DELETE FROM finalities WHERE cid = ?1 AND NOT EXISTS (SELECT 1 FROM objects WHERE cid = ?1)
"""

Statement = tuple[object, ...]
"""SQL, and the values of its parameters."""


class CatalogVersionError(Exception):
    """The catalog was written by a newer release."""


class CatalogError(OSError):
    """The catalog cannot be read or written: a full disk, say."""


@contextmanager
def told_to_callers(what: str) -> Iterator[None]:
    """Has callers told that ``what`` is to be tried again; why a CatalogError came, the log says.

    Raises StoreUnavailableError.
    """
    try:
        yield
    except CatalogError as error:
        log.warning("cache_catalog_unwritable", error=str(error))
        raise StoreUnavailableError(f"{what} could not be recorded; try again.") from error


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A whole file and what it holds."""

    info: ObjectInfo
    file: str
    sha256: bytes
    final_on: frozenset[str]
    """The networks on which the object is known to be final."""


class Catalog:
    """The database. Calls wait for one another; each is one transaction.

    Every call raises CatalogError when the disk is full or broken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(1, "catalog")
        self._database: sqlite3.Connection

    async def open(self) -> bool:
        """Opens or makes the database; whether the process before this one stopped cleanly.

        From now on the next one did not, until ``close``. Older versions are brought up to date.
        Raises CatalogVersionError.
        """
        return await self._call(self._open)

    async def close(self, *, clean: bool = True) -> None:
        """Closes the database; ``clean`` says that every file is as the catalog has it."""
        try:
            if clean:
                await self.change(("UPDATE stops SET clean = 1",), durable=True)
        finally:
            await self._call(self._database.close)
            self._pool.shutdown()

    async def objects(self) -> list[StoredObject]:
        """All objects, the oldest first."""
        return await self._call(self._objects)

    async def add_object(self, stored: StoredObject) -> None:
        """Adds an object, in the place of an older record of it."""
        info = stored.info
        facts = (info.cid, info.size_bytes, info.name, info.media_type)
        flags = (int(info.compressed), int(info.encrypted))
        await self.change(
            ("DELETE FROM objects WHERE cid = ?", info.cid),
            (
                "INSERT INTO objects VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
                *facts,
                *flags,
                stored.file,
                stored.sha256,
            ),
            *[_final(info.cid, network) for network in stored.final_on],
        )

    async def remove_object(self, stored: StoredObject) -> None:
        """Removes an object and what is known of its finality, unless it was replaced since."""
        await self.change(
            ("DELETE FROM objects WHERE file = ?", stored.file),
            (_FORGET_FINALITY, stored.info.cid),
        )

    async def mark_final(self, key: ObjectKey) -> None:
        """Records that an object is final on a network."""
        await self.change(_final(key.cid, key.network))

    async def read(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows that a statement finds."""
        return await self._call(lambda: self._database.execute(statement, values).fetchall())

    async def change(self, *statements: Statement, durable: bool = False) -> int:
        """Runs statements in one transaction, synced if ``durable``; rows changed by the last."""
        return await self._call(lambda: self._change(statements, durable=durable))

    async def _call(self, function: Callable[[], T]) -> T:
        """Runs a function on the catalog's thread; once begun it ends, cancelled or not."""
        running = asyncio.get_running_loop().run_in_executor(self._pool, function)
        try:
            return await asyncio.shield(running)
        except sqlite3.Error as error:
            raise CatalogError(f"{self._path}: {error}") from error

    # What follows runs on the catalog's thread.

    def _open(self) -> bool:
        database = sqlite3.connect(self._path, isolation_level=None)
        self._database = database
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        newest = len(VERSIONS)
        if version > newest:
            database.close()
            raise CatalogVersionError(
                f"{self._path} was written by a newer release (version {version}, not {newest})"
            )
        for number, text in enumerate(VERSIONS[version:], start=version + 1):
            database.executescript(f"BEGIN; {text} PRAGMA user_version = {number}; COMMIT;")
        (clean,) = database.execute("SELECT clean FROM stops").fetchone()
        self._change([("UPDATE stops SET clean = 0",)], durable=True)
        return bool(clean)

    def _change(self, statements: list[Statement] | tuple[Statement, ...], *, durable: bool) -> int:
        self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        changed = 0
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            for text, *values in statements:
                changed = self._database.execute(str(text), values).rowcount
        return changed

    def _objects(self) -> list[StoredObject]:
        final: dict[str, set[str]] = {}
        for cid, network in self._database.execute("SELECT cid, network FROM finalities"):
            final.setdefault(cid, set()).add(network)
        rows = self._database.execute(
            "SELECT cid, size_bytes, name, media_type, compressed, encrypted, file, sha256"
            " FROM objects ORDER BY added"
        )
        return [
            StoredObject(
                ObjectInfo(cid, size, name, media_type, bool(compressed), bool(encrypted)),
                file,
                sha256,
                frozenset(final.get(cid, ())),
            )
            for cid, size, name, media_type, compressed, encrypted, file, sha256 in rows
        ]


def _final(cid: str, network: str) -> Statement:
    return "INSERT OR IGNORE INTO finalities VALUES (?, ?)", cid, network
