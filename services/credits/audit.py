"""The proof that the ledger is right: accounts are replayed from their entries and compared.

Reads only, in bounded parts, and leaves the event loop to others between them. What an account does
in the meantime does no harm: see ``bookcheck``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NamedTuple

from services.credits.bookcheck import compare
from services.credits.bookparts import SECTIONS, key_parts, read_part
from services.credits.books import Books, DifferenceError
from services.credits.export import bounded_read
from services.credits.recordcheck import check_records
from services.credits.records import ENTRIES, WALLETS
from services.store.keys import pack
from services.store.pages import Listing
from services.store.port import ReadTransaction, Store

ENTRY_PAGE = 500
RECORD_PAGE = 500
REPORT_ENTRIES = 20_000
REPORT_S = 1.0
"""How often an audit says how far it has come: after so many entries, or so much time."""


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
        self._cursor = cursor
        self._accounts = self._entries = 0
        self._reported = 0, time.monotonic()

    async def run(self) -> AsyncIterator[Progress]:
        """Checks account by account; the last message has a difference, or is done."""
        try:
            while account_id := await self._next_account():
                async for progress in self._check(account_id):
                    yield progress
                self._accounts += 1
                self._after = pack((account_id,))
                self._cursor = self._listing.token(self._after)
                if self._is_due():
                    yield self._progress()
            if not self._account_id:
                async for _ in check_records(self._store):
                    if self._is_due():
                        yield self._progress()
        except DifferenceError as difference:
            yield self._progress()._replace(difference=difference)
        else:
            yield self._progress()._replace(done=True)

    async def _next_account(self) -> str:
        """The next account of which anything is stored; empty: there is none."""
        if self._account_id:
            return "" if self._after else self._account_id
        return (await self._store.read(partial(_account_behind, after=self._after))).result

    async def _check(self, account_id: str) -> AsyncIterator[Progress]:
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
                async for progress in self._replay(books, until):
                    yield progress
                compare(books, moment, [part])
                after, last = part.upto, part.last
                await asyncio.sleep(0)

    async def _replay(self, books: Books, until: int) -> AsyncIterator[Progress]:
        """Brings the books to an entry; raises ``DifferenceError``."""
        while books.number < until:
            run = partial(_entries, books=books, until=until)
            pairs = (await bounded_read(self._store, run, ENTRY_PAGE)).result
            if not pairs:
                number = books.number + 1
                raise books.wrong("number", number, "none", "is missing", number)
            for key, value in pairs:
                books.apply(key, value)
            self._entries += len(pairs)
            if self._is_due():
                yield self._progress()
            await asyncio.sleep(0)

    def _is_due(self) -> bool:
        entries, moment = self._reported
        return self._entries - entries >= REPORT_ENTRIES or time.monotonic() - moment >= REPORT_S

    def _progress(self) -> Progress:
        self._reported = self._entries, time.monotonic()
        return Progress(self._accounts, self._entries, self._cursor)


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
    for section in (WALLETS, ENTRIES, *SECTIONS):
        begin, end = section.range()
        if after:
            begin = section.prefix + after + b"\xff"
        first = tx.range(begin, end, limit=1)
        if first:
            names.append(str(key_parts(section, first[0][0])[0]))
    return min(names, default="")
