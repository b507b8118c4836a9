"""Debit over FoundationDB as one would write it first: a transaction for each debit.

It reads the balance and the request's record, checks, and writes the balance, an entry under a
versionstamp, and the record, in the binding's own retry loop (``fdb.transactional``), in as many
threads as ``BENCH_POOL`` says. A request that was applied before is answered from its record.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import fdb  # type: ignore[import-untyped]  # the binding ships no types
import fdb.tuple  # type: ignore[import-untyped]  # as above
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import credits_pb2_grpc as pb_grpc

from bench.serving import serve_until
from services.credits.errors import InsufficientCreditError
from services.credits.settings import CreditSettings
from services.process.lifecycle import run

API_VERSION = 730
CLUSTER_VARIABLE, DIRECTORY_VARIABLE = "BENCH_FDB_CLUSTER_FILE", "BENCH_FDB_DIRECTORY"
POOL_VARIABLE = "BENCH_POOL"
_BALANCE = struct.Struct(">q")
_PAGE = 5_000

Native = Any
"""An object of the binding, which ships no types."""


class Books:
    """Accounts, entries and request records in one directory. Every method blocks."""

    def __init__(self, database: Native, directory: str) -> None:
        self._database = database
        space = fdb.directory.create_or_open(database, (directory,))
        self._accounts, self._entries = space["account"], space["entry"]
        self._requests = space["request"]
        self._committed = fdb.transactional(_in_transaction)

    @classmethod
    def open(cls, cluster_file: str, directory: str) -> Books:
        """Raises what the binding raises."""
        fdb.api_version(API_VERSION)
        return cls(fdb.open(cluster_file), directory)

    def grant(self, account_id: str, amount: int) -> None:
        """Adds an account with a balance, unless it is there."""
        work = partial(self._grant, account_id=account_id, amount=amount)
        self._committed(self._database, work)

    def debit(self, account_id: str, request_id: str, amount: int) -> int:
        """Takes an amount, once a request; gives what is left. Raises InsufficientCreditError."""
        work = partial(self._debit, account_id=account_id, request_id=request_id, amount=amount)
        return int(self._committed(self._database, work))

    def _grant(self, transaction: Native, account_id: str, amount: int) -> None:
        key = self._accounts.pack((account_id,))
        if not transaction[key].present():
            transaction[key] = _BALANCE.pack(amount)

    def _debit(self, transaction: Native, account_id: str, request_id: str, amount: int) -> int:
        key, record = self._accounts.pack((account_id,)), self._requests.pack((request_id,))
        stored, earlier = transaction[key], transaction[record]  # asked for together
        if earlier.present():
            return int(_BALANCE.unpack(bytes(earlier))[0])
        available = _BALANCE.unpack(bytes(stored))[0] if stored.present() else 0
        if available < amount:
            raise InsufficientCreditError
        left = _BALANCE.pack(available - amount)
        transaction[key] = left
        transaction[record] = left
        place = (account_id, fdb.tuple.Versionstamp())
        entry = fdb.tuple.pack((request_id, amount, available - amount))
        transaction.set_versionstamped_key(self._entries.pack_with_versionstamp(place), entry)
        return int(available - amount)

    def taken(self, granted: int) -> tuple[int, int]:
        """What all accounts lack of what each was granted, and how many entries there are."""
        balances = self._database.get_range_startswith(self._accounts.key())
        taken = sum(granted - _BALANCE.unpack(pair.value)[0] for pair in balances)
        entries, span = 0, self._entries.range()
        begin = span.start
        while page := list(self._database.get_range(begin, span.stop, _PAGE)):
            entries += len(page)
            begin = fdb.KeySelector.first_greater_than(page[-1].key)
        return taken, entries


def _in_transaction(tr: Native, work: Callable[[Native], object]) -> object:
    return work(tr)


class NaiveCredits(pb_grpc.CreditServiceServicer):
    """Grants and debits."""

    def __init__(self, books: Books, workers: ThreadPoolExecutor) -> None:
        self._books = books
        self._workers = workers
        self._loop = asyncio.get_running_loop()

    async def Grant(self, request: pb.GrantRequest, context: object) -> pb.GrantResponse:  # noqa: N802 (generated name)
        """Adds an account."""
        del context
        work = partial(self._books.grant, request.account_id, request.amount)
        await self._loop.run_in_executor(self._workers, work)
        return pb.GrantResponse()

    async def Debit(self, request: pb.DebitRequest, context: object) -> pb.DebitResponse:  # noqa: N802 (generated name)
        """Takes credit."""
        del context
        name, amount = request.account_id, request.amount
        work = partial(self._books.debit, name, request.request_id, amount)
        available = await self._loop.run_in_executor(self._workers, work)
        balance = pb.Balance(account_id=name, currency="credit", available=available)
        return pb.DebitResponse(amount=amount, balance=balance)


async def serve(settings: CreditSettings, stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set."""
    environment = os.environ
    books = Books.open(environment[CLUSTER_VARIABLE], environment[DIRECTORY_VARIABLE])
    with ThreadPoolExecutor(int(environment[POOL_VARIABLE])) as workers:
        servicer = NaiveCredits(books, workers)  # type: ignore[abstract]  # two methods are enough
        await serve_until(servicer, settings, stop)


if __name__ == "__main__":
    run(CreditSettings, serve)
