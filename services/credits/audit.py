"""The proof that the ledger is right: accounts are replayed from their entries and compared.

Reads only, in bounded parts, and leaves the event loop to others between them. Small accounts are
read many at a time (``accountscan``), others alone and in parts (``bookparts``). What an account
does in the meantime does no harm: see ``bookcheck``. An audit of all accounts ends with the records
that belong to none (``recordcheck``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NamedTuple

from services.credits.accountscan import Batch, Holdings, holdings, read_accounts
from services.credits.bookcheck import compare
from services.credits.bookparts import BEHIND, SECTIONS, key_parts, read_part
from services.credits.books import Books, DifferenceError
from services.credits.export import bounded_read
from services.credits.recordcheck import check_records
from services.credits.records import ACCOUNTS, ENTRIES
from services.store.errors import OperationTooLargeError
from services.store.keys import pack
from services.store.pages import Listing
from services.store.port import ReadTransaction, Store

TOGETHER = 1000
"""Accounts of one read at most."""
ENTRY_PAGE = 500
RECORD_PAGE = 500
REPORT_ENTRIES = 20_000
REPORT_S = 1.0
"""How often an audit says how far it has come: after so many entries, or so much time."""
_TURN_ENTRIES = 500
"""Entries that are replayed before others have their turn in the event loop."""


class Progress(NamedTuple):
    """How far an audit has come."""

    accounts: int
    entries: int
    cursor: str
    done: bool = False
    difference: DifferenceError | None = None


class Audit:
    """One audit, of one account or of all."""

    def __init__(self, store: Store, account_id: str = "", cursor: str = "") -> None:
        """``cursor``: of an earlier audit of the same; raises ``PageTokenInvalidError``."""
        self._store = store
        self._account_id = account_id
        self._listing = Listing("credits.audit", account_id)
        self._after = self._listing.position(cursor) if cursor else b""
        """The last account that was checked, as a part of a key."""
        self._accounts = self._entries = 0
        self._reported = 0, time.monotonic()
        self._size = min(64, TOGETHER)
        """How many accounts the next read is to have; 0: the next one alone."""

    async def run(self) -> AsyncIterator[Progress]:
        """Checks account by account; the last message has a difference, or is done."""
        try:
            checks = self._all() if not self._account_id else self._one(self._account_id)
            async for _ in checks:
                if self._is_due():
                    yield self._progress()
        except DifferenceError as difference:
            yield self._progress()._replace(difference=difference)
        else:
            yield self._progress()._replace(done=True)

    async def _all(self) -> AsyncIterator[None]:
        """Yields now and then, as the ones below."""
        last = False
        while not last:
            batch = await self._next_batch()
            if batch is None:
                run = partial(_account_behind, after=self._after)
                account_id = (await self._store.read(run)).result
                last = not account_id
                async for _ in self._one(account_id):
                    yield
                self._size = min(2, TOGETHER)
            else:
                last = batch.last
                async for _ in self._batch(batch):
                    yield
        async for _ in check_records(self._store):
            yield

    async def _next_batch(self) -> Batch | None:
        """The next accounts; None when the next one is too large to be read whole."""
        while self._size:
            run = partial(read_accounts, after=self._after, size=self._size)
            try:
                batch = (await self._store.read(run)).result
            except OperationTooLargeError:
                self._size //= 2
            else:
                self._size = min(batch.next_size(), TOGETHER)
                return batch
        return None

    async def _batch(self, batch: Batch) -> AsyncIterator[None]:
        replayed = 0
        for held in holdings(batch):
            replayed += _check_whole(held)
            self._checked(held.packed, len(held.entries))
            yield
            if replayed >= _TURN_ENTRIES:
                replayed = 0
                await asyncio.sleep(0)

    async def _one(self, account_id: str) -> AsyncIterator[None]:
        """Checks an account part by part."""
        if not account_id or (self._account_id and self._after):
            return
        books = Books(account_id)
        for section in SECTIONS:
            after: tuple[Any, ...] = ()
            last = False
            while not last:
                run = partial(read_part, account_id=account_id, section=section, after=after)
                moment, part = (await bounded_read(self._store, run, RECORD_PAGE)).result
                if moment.wallet is None and self._account_id and not (part.found or moment.behind):
                    break  # Nothing is known of the account that was asked for.
                until = 0 if moment.wallet is None else moment.wallet.sequence
                async for _ in self._replay(books, until):
                    yield
                compare(books, moment, [part])
                after, last = part.upto, part.last
                await asyncio.sleep(0)
        self._checked(pack((account_id,)), 0)
        yield

    async def _replay(self, books: Books, until: int) -> AsyncIterator[None]:
        """Brings the books to an entry; raises ``DifferenceError``."""
        while books.number < until:
            run = partial(_entries, books=books, until=until)
            pairs = (await bounded_read(self._store, run, ENTRY_PAGE)).result
            if not pairs:
                raise books.none_follows()
            for key, value in pairs:
                books.apply(key, value)
            self._entries += len(pairs)
            yield
            await asyncio.sleep(0)

    def _checked(self, packed: bytes, entries: int) -> None:
        self._accounts += 1
        self._entries += entries
        self._after = packed

    def _is_due(self) -> bool:
        entries, moment = self._reported
        return self._entries - entries >= REPORT_ENTRIES or time.monotonic() - moment >= REPORT_S

    def _progress(self) -> Progress:
        self._reported = self._entries, time.monotonic()
        cursor = self._listing.token(self._after) if self._after else ""
        return Progress(self._accounts, self._entries, cursor)


def _check_whole(held: Holdings) -> int:
    """Replays and compares an account; says how much work that was, in entries."""
    books = Books(held.account_id)
    for key, value in held.entries:
        books.apply(key, value)
    wallet = held.moment.wallet
    if wallet is not None and books.number < wallet.sequence:
        raise books.none_follows()
    compare(books, held.moment, held.parts)
    return len(held.entries) + 10


def _entries(
    tx: ReadTransaction, *, books: Books, until: int, size: int
) -> list[tuple[bytes, bytes]]:
    """The next entries, up to one."""
    begin = books.key(books.number) + b"\x00"
    if not books.number:
        begin, _ = ENTRIES.range(books.account_id)
    return tx.range(begin, books.key(until) + b"\x00", limit=size)


def _account_behind(tx: ReadTransaction, *, after: bytes) -> str:
    """The first account behind a packed one of which there is a record of any kind."""
    names = []
    for section in (ACCOUNTS, ENTRIES, *SECTIONS):
        begin, end = section.range()
        if after:
            begin = section.prefix + after + BEHIND
        first = tx.range(begin, end, limit=1)
        if first:
            names.append(str(key_parts(section, first[0][0])[0]))
    return min(names, default="")
