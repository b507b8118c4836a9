"""Debits that travel into the store together, as one operation: a parcel.

While a commit is under way, the debits that arrive join a parcel, which is closed when the store
takes it. So a busy account has its wallet read and written once for hundreds of debits, and each
debit has its own outcome nevertheless. When nothing is under way a parcel waits for nothing.

There is a parcel for each group of accounts, not for each account: what an operation costs is
shared by many debits also when no account is busy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

from services.credits.account import Account, wallet_key
from services.credits.debits import Debit, debit
from services.credits.records import Answer, Metered, decode_answer
from services.credits.settlement import catch_up
from services.credits.tariff import Tariff
from services.rpc.errors import RequestIdReusedError as ReusedError
from services.rpc.errors import ServiceError
from services.store.errors import (
    RequestIdReusedError,
    StoreClosedError,
    StoreOverloadedError,
    StoreUnavailableError,
)
from services.store.port import Committed, Operation, Store, Transaction
from services.store.records import encode
from services.store.requests import RequestRecords, answer_in

GROUPS = 8
"""Of accounts. Few, so that parcels are full; several, for engines with several lanes."""
OPERATION_BYTES = 500_000
"""What the debits of a parcel read and write at most.

Half of the store's limit: an account may have more to do than to debit.
"""
MAX_WAITING = 50_000
"""Debits that wait for their commit; beyond it ``StoreOverloadedError``."""
_PLAIN_BYTES = 1_000
"""More than a debit with short names reads and writes, its account's wallet included."""


class Applied(NamedTuple):
    """What a mutation did, or had done before (``replayed``); a read at ``version`` sees it."""

    answer: Answer
    replayed: bool
    version: int


class DebitTerms(NamedTuple):
    """What every debit depends on."""

    tariff: Tariff
    requests: RequestRecords
    keep_us: int
    """For how long a closed hold is still known as such."""
    now_us: Callable[[], int]


Done = tuple[Answer, bool]
"""The answer to a mutation, and whether the request had it before."""
Result = Done | Exception | None
"""Of one debit; None: its account must be settled first."""
Waiter = asyncio.Future[Committed[list[Result]]]
"""Outcomes to come, in order."""


@lru_cache(maxsize=8192)
def group_of(account_id: str) -> str:
    """The group of an account's operations in the store."""
    return f"credits-{crc32(account_id.encode()) % GROUPS}"


class Parcels:
    """The open parcels: at most one a group."""

    def __init__(
        self, store: Store, terms: DebitTerms, settle: Callable[[str, int], Awaitable[None]]
    ) -> None:
        """``settle``: brings an account up to a time."""
        self._store = store
        self._terms = terms
        self._settle = settle
        self._open: dict[str, Parcel] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._waiting = 0

    def add(self, request: Debit) -> Waiter:
        """Sends a debit on its way.

        Raises ``StoreOverloadedError`` (nothing was done). A caller that gives up leaves its debit
        on its way.
        """
        self._admit(1)
        return self._with_room(group_of(request.account_id), request).wait_for(1)

    def add_all(self, requests: Sequence[Debit]) -> list[tuple[Waiter, list[int]]]:
        """Sends many on their way; as ``add``. Gives the indexes of each waiter's debits.

        Those of an account are applied in their order.
        """
        self._admit(len(requests))
        shares: dict[Parcel, list[int]] = {}
        for index, request in enumerate(requests):
            parcel = self._with_room(group_of(request.account_id), request)
            share = shares.get(parcel)
            if share is None:
                shares[parcel] = [index]
            else:
                share.append(index)
        return [(parcel.wait_for(len(share)), share) for parcel, share in shares.items()]

    def _admit(self, count: int) -> None:
        if self._waiting + count > MAX_WAITING:
            raise StoreOverloadedError(f"{self._waiting} debits are waiting")
        self._waiting += count

    def _with_room(self, group: str, request: Debit) -> Parcel:
        """The parcel of a group with the debit in it."""
        size_bytes = size_of(request)
        parcel = self._open.get(group)
        if parcel is None or parcel.size_bytes + size_bytes > OPERATION_BYTES:
            loop = asyncio.get_running_loop()
            parcel = self._open[group] = Parcel(group, self._terms, loop, self._open)
            task = loop.create_task(self._send(parcel))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        parcel.add(request, size_bytes)
        return parcel

    async def _send(self, parcel: Parcel) -> None:
        try:
            committed = await self._commit(parcel)
        except (StoreUnavailableError, StoreOverloadedError, StoreClosedError) as error:
            parcel.fail(error)
        except Exception as error:  # noqa: BLE001 (it is of one debit and must not hurt the others)
            if len(parcel.debits) == 1:
                parcel.fail(error)
            else:
                await self._finish(parcel, Committed([None] * len(parcel.debits), 0))
        else:
            parcel.answer(committed)
            if None in committed.result:
                await self._finish(parcel, committed)
        finally:
            self._waiting -= len(parcel.debits)

    async def _commit(self, parcel: Parcel) -> Committed[list[Result]]:
        try:
            return await self._store.commit(
                Operation(parcel.run, parcel.group, parcel.reads, parcel.seal)
            )
        finally:
            parcel.seal()  # also when the store did not take it

    async def _finish(self, parcel: Parcel, committed: Committed[list[Result]]) -> None:
        """Applies, one by one in their order, the debits that have no result yet."""
        results, version = list(committed.result), committed.version
        for index, request in enumerate(parcel.debits):
            if results[index] is None:
                try:
                    done = await self._singly(parcel, request)
                except Exception as error:  # noqa: BLE001 (it goes to the caller of this debit)
                    results[index] = error
                else:
                    results[index], version = done.result[0], done.version
        parcel.answer(Committed(results, version))

    async def _singly(self, parcel: Parcel, request: Debit) -> Committed[list[Result]]:
        while True:
            single = Parcel(parcel.group, self._terms, parcel.loop, {})
            single.add(request, 0)
            committed = await self._commit(single)
            if committed.result[0] is not None:
                return committed
            await self._settle(request.account_id, single.now_us)


class Parcel:
    """Debits in one operation.

    A debit has no result when its account has so much due that it must be settled first.
    """

    __slots__ = (
        "_among",
        "_keys",
        "_terms",
        "_waiters",
        "debits",
        "group",
        "loop",
        "now_us",
        "reads",
        "size_bytes",
    )

    def __init__(
        self,
        group: str,
        terms: DebitTerms,
        loop: asyncio.AbstractEventLoop,
        among: dict[str, Parcel],
    ) -> None:
        """``among``: the open parcels, of which it is one until it is sealed."""
        self.group = group
        self.loop = loop
        self.debits: list[Debit] = []
        self.reads: list[bytes] = []
        self.size_bytes = 0
        self.now_us = 0
        """When it was sealed."""
        self._terms = terms
        self._among = among
        self._keys: list[bytes] = []
        self._waiters: list[tuple[Waiter, int]] = []

    def add(self, request: Debit, size_bytes: int) -> None:
        """Takes a debit in."""
        self.size_bytes += size_bytes
        self.debits.append(request)
        self._keys.append(self._terms.requests.key(request.request_id))

    def wait_for(self, count: int) -> Waiter:
        """The outcomes of the last ``count`` debits, to come; say it before others are added."""
        waiter: Waiter = self.loop.create_future()
        self._waiters.append((waiter, count))
        return waiter

    def seal(self) -> None:
        """Takes nothing more in; the debits happen now."""
        if not self.now_us:
            self.now_us = self._terms.now_us()
            if self._among.get(self.group) is self:
                del self._among[self.group]
            accounts = {request.account_id for request in self.debits}
            self.reads += map(wallet_key, accounts)
            self.reads += self._keys

    def run(self, tx: Transaction) -> list[Result]:
        """The operation."""
        terms = self._terms
        accounts: dict[str, Account] = {}
        made: dict[bytes, bytes] = {}
        results: list[Result] = []
        stored = tx.get_many(self._keys)
        for request, key, found in zip(self.debits, self._keys, stored, strict=True):
            # A request may be in a parcel twice.
            record = made.get(key) if found is None else found
            try:
                if record is not None:
                    earlier = answer_in(record, request.request_id, request.fingerprint)
                    results.append((decode_answer(earlier), True))
                    continue
                account = accounts.get(request.account_id)
                if account is None:
                    account = accounts[request.account_id] = self._opened(tx, request.account_id)
                if account.wallet.agenda_us <= self.now_us:
                    results.append(None)
                    continue
                answer = debit(account, request, terms.tariff)
            except RequestIdReusedError:
                results.append(ReusedError())
            except ServiceError as error:
                results.append(error)
            else:
                made[key] = request.fingerprint + encode(answer)
                results.append((answer, False))
        for account in accounts.values():
            account.save()
        if made:
            terms.requests.remember_all(tx, made, now_us=self.now_us)
        return results

    def answer(self, committed: Committed[list[Result]]) -> None:
        """Tells everybody who waits for results that are there."""
        results, version = committed.result, committed.version
        start = 0
        for waiter, count in self._waiters:
            end = start + count
            part = results[start:end]
            if not waiter.done() and None not in part:  # done: its caller was cancelled
                waiter.set_result(Committed(part, version))
            start = end

    def fail(self, error: Exception) -> None:
        """Tells everybody who waits that nothing is known to be done."""
        for waiter, _ in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # not a fault if its caller has gone

    def _opened(self, tx: Transaction, account_id: str) -> Account:
        """The account, settled up to now, or (still due then) a part of the way."""
        account = Account(tx, account_id, self.now_us)
        if account.wallet.agenda_us <= self.now_us:
            catch_up(account, self._terms.keep_us)
        return account


async def collected(
    shares: Sequence[tuple[Waiter, list[int]]], count: int
) -> list[Applied | ServiceError]:
    """The outcomes of ``count`` debits in their order, from what ``add_all`` gave.

    Raises the first error that is not a refusal, once all have ended.
    """
    outcomes: list[Applied | ServiceError] = [ReusedError()] * count  # each is replaced
    failure: Exception | None = None
    for waiter, indexes in shares:
        try:
            committed = await waiter
            for index, result in zip(indexes, committed.result, strict=True):
                outcomes[index] = outcome_of(result, committed.version)
        except Exception as error:  # noqa: BLE001 (it is raised below)
            failure = failure or error
    if failure is not None:
        raise failure
    return outcomes


def outcome_of(result: Result, version: int) -> Applied | ServiceError:
    """What a caller is told of a debit; raises what is not a refusal."""
    if isinstance(result, tuple):
        return Applied(*result, version)
    if isinstance(result, ServiceError):
        return result
    raise result or LookupError("a debit without a result")


def size_of(request: Debit) -> int:
    """More than what a debit reads and writes: keys and values with these names in them."""
    meter = len(request.price.meter) if isinstance(request.price, Metered) else 0
    names = 6 * len(request.account_id) + 3 * len(request.request_id) + 4 * meter
    return _PLAIN_BYTES + names + 4 * len(request.resource)
