"""What must survive a restart: which files are whole, what is final, pins, and pin requests.

One SQLite database in WAL mode on one thread of its own. Losing the last rows of ``objects`` costs
a fetch, so those are not synced; pins were paid for and are.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from services.edge.objects import ObjectInfo, ObjectKey

T = TypeVar("T")

REQUEST_RECORD_S = 48 * 3600.0
"""How long a repeated pin request is recognised."""

_VERSION = 1
_SCHEMA = """
CREATE TABLE objects (
    added INTEGER PRIMARY KEY AUTOINCREMENT,
    cid TEXT NOT NULL UNIQUE,
    size_bytes INTEGER NOT NULL,
    name TEXT NOT NULL,
    media_type TEXT NOT NULL,
    compressed INTEGER NOT NULL,
    encrypted INTEGER NOT NULL,
    file TEXT NOT NULL UNIQUE,
    sha256 BLOB NOT NULL
) STRICT;
CREATE TABLE finalities (
    cid TEXT NOT NULL, network TEXT NOT NULL, PRIMARY KEY (cid, network)
) STRICT, WITHOUT ROWID;
CREATE TABLE pins (
    account_id TEXT NOT NULL,
    network TEXT NOT NULL,
    cid TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (account_id, network, cid)
) STRICT, WITHOUT ROWID;
CREATE TABLE requests (
    account_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    verb TEXT NOT NULL,
    object TEXT NOT NULL,
    amount INTEGER NOT NULL,
    currency TEXT NOT NULL,
    time_s REAL NOT NULL,
    PRIMARY KEY (account_id, request_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE stops (clean INTEGER NOT NULL) STRICT;
INSERT INTO stops VALUES (1);
"""


class CatalogVersionError(Exception):
    """The catalog was written by a newer release."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A whole file and what it holds."""

    info: ObjectInfo
    file: str
    sha256: bytes
    final_on: frozenset[str]
    """The networks on which the object is known to be final."""


@dataclass(frozen=True, slots=True)
class Pin:
    """An object that an account keeps on this edge."""

    account_id: str
    key: ObjectKey
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PinRequest:
    """A pin or unpin that was done, for those who repeat it."""

    account_id: str
    request_id: str
    verb: Literal["pin", "unpin"]
    object: str
    amount: int = 0
    currency: str = ""


class Catalog:
    """The database. Calls wait for one another; each is one transaction."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(1, "catalog")
        self._database: sqlite3.Connection

    async def open(self) -> bool:
        """Opens or makes the database; whether the process before this one stopped cleanly.

        From now on the next one did not, until ``close``. Raises CatalogVersionError, OSError or
        sqlite3.Error.
        """
        return await self._call(self._open)

    async def close(self, *, clean: bool = True) -> None:
        """Closes the database; ``clean`` says that every file is as the catalog has it."""
        if clean:
            await self._write("UPDATE stops SET clean = 1", durable=True)
        await self._call(self._database.close)
        self._pool.shutdown()

    async def objects(self) -> list[StoredObject]:
        """All objects, the oldest first."""
        return await self._call(self._objects)

    async def add_object(self, stored: StoredObject) -> None:
        """Adds an object, in the place of an older record of it."""
        await self._call(lambda: self._add_object(stored))

    async def remove_object(self, stored: StoredObject) -> None:
        """Removes an object and what is known of its finality, unless it was replaced since."""
        await self._call(lambda: self._remove_object(stored))

    async def mark_final(self, key: ObjectKey) -> None:
        """Records that an object is final on a network."""
        await self._write("INSERT OR IGNORE INTO finalities VALUES (?, ?)", key.cid, key.network)

    async def pins(self) -> list[Pin]:
        """All pins."""
        rows = await self._read("SELECT account_id, network, cid, size_bytes FROM pins")
        return [Pin(account, ObjectKey(network, cid), size) for account, network, cid, size in rows]

    async def add_pin(self, pin: Pin, request: PinRequest) -> None:
        """Adds a pin and the record of its request; durable."""
        await self._call(lambda: self._add_pin(pin, request))

    async def remove_pin(self, account_id: str, key: ObjectKey, request: PinRequest) -> None:
        """Removes a pin and records the request; durable."""
        await self._call(lambda: self._remove_pin(account_id, key, request))

    async def add_request(self, request: PinRequest) -> None:
        """Records a request that changed nothing."""
        await self._call(lambda: self._in_transaction(lambda: self._insert_request(request)))

    async def request(self, account_id: str, request_id: str) -> PinRequest | None:
        """The earlier request of this id, if it is still remembered."""
        rows = await self._read(
            "SELECT * FROM requests WHERE account_id = ? AND request_id = ?", account_id, request_id
        )
        return PinRequest(*rows[0][:6]) if rows else None

    async def _read(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return await self._call(lambda: self._database.execute(statement, values).fetchall())

    async def _write(self, statement: str, *values: object, durable: bool = False) -> None:
        def write() -> None:
            self._in_transaction(lambda: self._database.execute(statement, values), durable=durable)

        await self._call(write)

    async def _call(self, function: Callable[[], T]) -> T:
        """Runs a function on the catalog's thread; once begun it ends, cancelled or not."""
        return await asyncio.shield(
            asyncio.get_running_loop().run_in_executor(self._pool, function)
        )

    # What follows runs on the catalog's thread.

    def _open(self) -> bool:
        database = sqlite3.connect(self._path, isolation_level=None)
        self._database = database
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            database.close()
            raise CatalogVersionError(
                f"{self._path} was written by a newer release (version {version}, not {_VERSION})"
            )
        if version == 0:
            database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        (clean,) = database.execute("SELECT clean FROM stops").fetchone()
        self._in_transaction(lambda: database.execute("UPDATE stops SET clean = 0"), durable=True)
        return bool(clean)

    def _in_transaction(self, change: Callable[[], object], *, durable: bool = False) -> None:
        self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            change()

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

    def _add_object(self, stored: StoredObject) -> None:
        info = stored.info
        facts = (info.cid, info.size_bytes, info.name, info.media_type)
        flags = (int(info.compressed), int(info.encrypted))

        def change() -> None:
            self._database.execute("DELETE FROM objects WHERE cid = ?", (info.cid,))
            self._database.execute(
                "INSERT INTO objects VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*facts, *flags, stored.file, stored.sha256),
            )
            for network in stored.final_on:
                self._database.execute(
                    "INSERT OR IGNORE INTO finalities VALUES (?, ?)", (info.cid, network)
                )

        self._in_transaction(change)

    def _remove_object(self, stored: StoredObject) -> None:
        def change() -> None:
            self._database.execute("DELETE FROM objects WHERE file = ?", (stored.file,))
            self._database.execute(
                "DELETE FROM finalities WHERE cid = ?1"
                " AND NOT EXISTS (SELECT 1 FROM objects WHERE cid = ?1)",
                (stored.info.cid,),
            )

        self._in_transaction(change)

    def _add_pin(self, pin: Pin, request: PinRequest) -> None:
        def change() -> None:
            self._database.execute(
                "INSERT OR REPLACE INTO pins VALUES (?, ?, ?, ?)",
                (pin.account_id, pin.key.network, pin.key.cid, pin.size_bytes),
            )
            self._insert_request(request)

        self._in_transaction(change, durable=True)

    def _remove_pin(self, account_id: str, key: ObjectKey, request: PinRequest) -> None:
        def change() -> None:
            self._database.execute(
                "DELETE FROM pins WHERE account_id = ? AND network = ? AND cid = ?",
                (account_id, key.network, key.cid),
            )
            self._insert_request(request)

        self._in_transaction(change, durable=True)

    def _insert_request(self, request: PinRequest) -> None:
        now = time.time()
        self._database.execute("DELETE FROM requests WHERE time_s < ?", (now - REQUEST_RECORD_S,))
        self._database.execute(
            "INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                request.account_id,
                request.request_id,
                request.verb,
                request.object,
                request.amount,
                request.currency,
                now,
            ),
        )
