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
from typing import Any, NamedTuple
from zlib import crc32

from services.credits.account import Account, usage_key, wallet_in, wallet_key
from services.credits.debits import Debit, debit
from services.credits.records import Answer, Metered, decode_answer
from services.credits.settlement import catch_up
from services.credits.tariff import Tariff
from services.credits.watch import Watches
from services.rpc.errors import RequestIdReusedError as ReusedError
from services.rpc.errors import ServiceError
from services.store.errors import (
    RequestIdReusedError,
    StoreClosedError,
    StoreOverloadedError,
    StoreUnavailableError,
)
from services.store.port import Committed, Operation, Store, Transaction
from services.store.records import encode, unsealed
from services.store.requests import RequestRecords, answer_in

GROUPS = 4
"""Of accounts. Few, so that parcels are full; several, for engines with several lanes."""
OPERATION_BYTES = 500_000
"""What the debits of a parcel read and write at most.

Half of the store's limit: an account may have more to do than to debit.
"""
MAX_WAITING = 50_000
"""Debits that wait for their commit; beyond it ``StoreOverloadedError``."""
DEBIT_BYTES = 900
"""What a debit reads and writes about at most, its resource aside; a wallet may be larger."""


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
Share = asyncio.Future[tuple[list[Result], int]]
"""Results to come, in order, and the version at which they are visible."""


@lru_cache(maxsize=8192)
def group_of(account_id: str) -> str:
    """The group of an account's operations in the store."""
    return f"credits-{crc32(account_id.encode()) % GROUPS}"


class Parcels:
    """The open parcels: at most one a group."""

    def __init__(
        self,
        store: Store,
        terms: DebitTerms,
        settle: Callable[[str, int], Awaitable[None]],
        watches: Watches,
    ) -> None:
        """``settle``: brings an account up to a time."""
        self._watches = watches
        self._store = store
        self._terms = terms
        self._settle = settle
        self._open: dict[str, Parcel] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._waiting = 0

    def add(self, request: Debit) -> asyncio.Future[Applied]:
        """Sends a debit on its way; the future has its outcome or error.

        Raises ``StoreOverloadedError`` (nothing was done). A caller that gives up leaves its debit
        on its way.
        """
        self._admit(1)
        return self._with_room(group_of(request.account_id), request).single()

    def add_all(self, requests: Sequence[Debit]) -> list[tuple[Share, list[int]]]:
        """Sends many on their way; as ``add``. Gives the indexes of each share's debits.

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
        return [(parcel.share(len(share)), share) for parcel, share in shares.items()]

    def _admit(self, count: int) -> None:
        if self._waiting + count > MAX_WAITING:
            raise StoreOverloadedError(f"{self._waiting} debits are waiting")
        self._waiting += count

    def _with_room(self, group: str, request: Debit) -> Parcel:
        """The parcel of a group with the debit in it."""
        size_bytes = DEBIT_BYTES + 4 * len(request.resource)
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
            committed = await self._store.commit(
                Operation(parcel.run, parcel.group, parcel.reads, parcel.seal, parcel.weight)
            )
        finally:
            parcel.seal()  # also when the store did not take it
        self._watches.changed(parcel.accounts)
        return committed

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
        "_shares",
        "_singles",
        "_terms",
        "accounts",
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
        self.accounts: list[str] = []
        """Whose debits these are; known when it is sealed."""
        self._terms = terms
        self._among = among
        self._keys: list[bytes] = []
        self._singles: list[tuple[asyncio.Future[Applied], int]] = []
        self._shares: list[tuple[Share, int, int]] = []

    def add(self, request: Debit, size_bytes: int) -> None:
        """Takes a debit in."""
        self.size_bytes += size_bytes
        self.debits.append(request)
        self._keys.append(self._terms.requests.key(request.request_id))

    def single(self) -> asyncio.Future[Applied]:
        """The outcome of the last debit, to come."""
        waiter: asyncio.Future[Applied] = self.loop.create_future()
        self._singles.append((waiter, len(self.debits) - 1))
        return waiter

    def share(self, count: int) -> Share:
        """The results of the last ``count`` debits, to come."""
        waiter: Share = self.loop.create_future()
        self._shares.append((waiter, len(self.debits) - count, len(self.debits)))
        return waiter

    def weight(self) -> int:
        """How many debits are in it."""
        return len(self.debits)

    def seal(self) -> None:
        """Takes nothing more in; the debits happen now."""
        if not self.now_us:
            self.now_us = self._terms.now_us()
            if self._among.get(self.group) is self:
                del self._among[self.group]
            self.accounts = sorted({request.account_id for request in self.debits})
            self.reads += map(wallet_key, self.accounts)
            self.reads += self._keys
            self.reads += {
                usage_key(request.account_id, self.now_us, request.price, currency)
                for request in self.debits
                if isinstance(request.price, Metered)
                and (currency := self._terms.tariff.currency(request.price.meter))
            }

    def run(self, tx: Transaction) -> list[Result]:
        """The operation."""
        terms = self._terms
        accounts: dict[str, Account] = {}
        made: dict[bytes, bytes] = {}
        results: list[Result] = []
        count = len(self.accounts)
        stored = tx.get_many(self.reads[: count + len(self._keys)])
        wallets = dict(zip(self.accounts, stored[:count], strict=True))
        for request, key, found in zip(self.debits, self._keys, stored[count:], strict=True):
            # A request may be in a parcel twice.
            record = made.get(key) if found is None else unsealed(key, found)
            try:
                if record is not None:
                    earlier = answer_in(record, request.request_id, request.fingerprint)
                    results.append((decode_answer(earlier), True))
                    continue
                account_id = request.account_id
                account = accounts.get(account_id)
                if account is None:
                    account = self._opened(tx, account_id, wallets[account_id])
                    accounts[account_id] = account
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
        for single, index in self._singles:
            result = results[index]
            if single.done():  # its caller was cancelled
                continue
            if isinstance(result, tuple):
                single.set_result(Applied(result[0], result[1], version))
            elif result is not None:
                single.set_exception(result)
        for share, start, end in self._shares:
            part = results[start:end]
            if not share.done() and None not in part:
                share.set_result((part, version))

    def fail(self, error: Exception) -> None:
        """Tells everybody who waits that nothing is known to be done."""
        waiters: list[asyncio.Future[Any]] = [waiter for waiter, _ in self._singles]
        waiters += [waiter for waiter, _, _ in self._shares]
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # not a fault if its caller has gone

    def _opened(self, tx: Transaction, account_id: str, stored: bytes | None) -> Account:
        """The account, settled up to now, or (still due then) a part of the way."""
        wallet = wallet_in(wallet_key(account_id), stored)
        account = Account(tx, account_id, self.now_us, wallet)
        if wallet.agenda_us <= self.now_us:
            terms = self._terms
            catch_up(account, terms.keep_us + terms.requests.ahead_us(self.now_us))
        return account


async def collected(
    shares: Sequence[tuple[Share, list[int]]], count: int
) -> list[Applied | ServiceError]:
    """The outcomes of ``count`` debits in their order, from what ``add_all`` gave.

    Raises the first error that is not a refusal, once all have ended.
    """
    outcomes: list[Applied | ServiceError] = [ReusedError()] * count  # each is replaced
    failure: Exception | None = None
    for share, indexes in shares:
        try:
            results, version = await share
            for index, result in zip(indexes, results, strict=True):
                outcomes[index] = outcome_of(result, version)
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
