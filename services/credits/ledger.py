"""The ledger: applies each mutation once, and answers what accounts have.

Builds the operations that run inside the store; everything that they decide is in pure functions of
a transaction (``grants``, ``debits``, ``holds``, ``settlement``, ``queries``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from services.credits import queries, settlement
from services.credits.account import Account, usage_key, wallet_key
from services.credits.debits import Debit, Price, debit
from services.credits.grants import Grant, grant
from services.credits.holds import Capture, HoldTerms, Release, Reserve, capture, release, reserve
from services.credits.queries import BalanceView, EntryPage, UsageLines
from services.credits.records import Answer, Metered, decode_answer
from services.credits.settlement import SettlementDueError, opened
from services.credits.tariff import Tariff
from services.rpc.errors import RequestIdReusedError as ReusedError
from services.rpc.errors import ServiceError
from services.store.errors import RequestIdReusedError
from services.store.port import Committed, Operation, ReadTransaction, Store, Transaction
from services.store.records import encode
from services.store.requests import RequestRecords

T = TypeVar("T")

Clock = Callable[[], int]
"""Microseconds since 1970, UTC."""

OPERATION_BYTES = 500_000
"""What the debits of a batch that are committed at once read and write at most.

Half of the store's limit: an account may have more to do than to debit.
"""


class Applied(NamedTuple):
    """What a mutation did, or had done before (``replayed``); a read at ``version`` sees it."""

    answer: Answer
    replayed: bool
    version: int


class _Mutation(Protocol):
    @property
    def account_id(self) -> str: ...
    @property
    def request_id(self) -> str: ...
    @property
    def fingerprint(self) -> bytes: ...


class Ledger:
    """The accounts of a store.

    Mutations raise what the functions of the same name raise, and ``RequestIdReusedError`` of the
    store; a failed one is not recorded: the same request may succeed later. Everything may raise
    store errors; after ``StoreUnavailableError`` a mutation is repeated with the same request id.
    """

    def __init__(
        self, store: Store, tariff: Tariff, requests: RequestRecords, *, keep_s: int, now_us: Clock
    ) -> None:
        """``keep_s``: for how many seconds a closed hold is still known as such."""
        self._store = store
        self._tariff = tariff
        self._requests = requests
        self._keep_us = keep_s * 1_000_000
        self._hold_terms = HoldTerms(tariff, self._keep_us)
        self._now_us = now_us

    async def grant(self, request: Grant) -> Applied:
        """Adds credit."""
        return await self._apply(request, lambda account: grant(account, request))

    async def debit(self, request: Debit) -> Applied:
        """Takes credit."""
        work = partial(debit, request=request, tariff=self._tariff)
        return await self._apply(request, work, request.price)

    async def reserve(self, request: Reserve) -> Applied:
        """Sets credit aside."""
        return await self._apply(request, lambda account: reserve(account, request, self._tariff))

    async def capture(self, request: Capture) -> Applied:
        """Debits a hold."""
        work = partial(capture, request=request, terms=self._hold_terms)
        return await self._apply(request, work, request.price)

    async def release(self, request: Release) -> Applied:
        """Gives a hold back."""
        work = partial(release, request=request, terms=self._hold_terms)
        return await self._apply(request, work)

    async def batch_debit(self, requests: Sequence[Debit]) -> list[Applied | ServiceError]:
        """Each debit's own outcome, in order; the debits of an account are applied in order."""
        by_account: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            by_account.setdefault(request.account_id, []).append(index)
        outcomes: dict[int, Applied | ServiceError] = {}

        async def of_account(indexes: list[int]) -> None:
            for part in _parts(indexes, requests):
                done = await self._debits([requests[index] for index in part])
                outcomes.update(zip(part, done, strict=True))

        try:
            async with asyncio.TaskGroup() as accounts:
                for indexes in by_account.values():
                    accounts.create_task(of_account(indexes))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [outcomes[index] for index in range(len(requests))]

    async def balance(self, account_id: str, currency: str, at_least: int = 0) -> BalanceView:
        """What an account has in a currency; at least as fresh as the version ``at_least``."""
        run = partial(queries.balance, account_id=account_id, currency=currency)
        read = await self._read(account_id, run, at_least)
        return read.result._replace(version=read.version)

    async def entries(
        self,
        account_id: str,
        *,
        size: int = 0,
        token: str = "",
        newest_first: bool = False,
        at_least: int = 0,
    ) -> EntryPage:
        """A page of an account's ledger; raises ``PageTokenInvalidError`` of the store."""
        run = partial(
            queries.entries,
            account_id=account_id,
            size=size,
            token=token,
            newest_first=newest_first,
        )
        read = await self._read(account_id, run, at_least)
        return read.result._replace(version=read.version)

    async def usage(self, account_id: str, start_us: int | None, end_us: int | None) -> UsageLines:
        """Usage by meter, from the UTC day of ``start_us`` to before that of ``end_us``."""
        total = queries.UsageTotal(account_id, start_us, end_us)
        while True:
            read = await self._read(account_id, total.next_part)
            if total.add(read.result):
                return total.lines(read.version)

    async def settle(self, account_id: str) -> None:
        """Applies what time did to an account; safe to repeat."""
        await self._settle(account_id, self._now_us())

    async def _apply(
        self, request: _Mutation, work: Callable[[Account], Answer], price: Price = 0
    ) -> Applied:
        now_us = self._now_us()
        account_id = request.account_id

        def run(tx: Transaction) -> tuple[Answer, bool]:
            earlier = self._requests.replay(tx, request.request_id, request.fingerprint)
            if earlier is not None:
                return decode_answer(earlier), True
            account = opened(tx, account_id, now_us=now_us, keep_us=self._keep_us)
            answer = work(account)
            account.save()
            self._remember(tx, request, answer, now_us)
            return answer, False

        reads = [self._requests.key(request.request_id), wallet_key(account_id)]
        if isinstance(price, Metered) and (currency := self._tariff.currency(price.meter)):
            reads.append(usage_key(account_id, now_us, price, currency))
        operation = Operation(run, account_id, tuple(reads))
        committed = await self._commit(operation, now_us)
        return Applied(*committed.result, committed.version)

    async def _debits(self, requests: Sequence[Debit]) -> list[Applied | ServiceError]:
        """Debits of one account in one operation."""
        now_us = self._now_us()
        account_id = requests[0].account_id

        def run(tx: Transaction) -> list[tuple[Answer, bool] | ServiceError]:
            account = opened(tx, account_id, now_us=now_us, keep_us=self._keep_us)
            outcomes = [self._debit_once(tx, account, request) for request in requests]
            account.save()
            return outcomes

        reads = tuple(self._requests.key(request.request_id) for request in requests)
        operation = Operation(run, account_id, (wallet_key(account_id), *reads))
        committed = await self._commit(operation, now_us)
        return [
            outcome if isinstance(outcome, ServiceError) else Applied(*outcome, committed.version)
            for outcome in committed.result
        ]

    def _debit_once(
        self, tx: Transaction, account: Account, request: Debit
    ) -> tuple[Answer, bool] | ServiceError:
        try:
            earlier = self._requests.replay(tx, request.request_id, request.fingerprint)
            if earlier is not None:
                return decode_answer(earlier), True
            answer = debit(account, request, self._tariff)
        except RequestIdReusedError:
            return ReusedError()
        except ServiceError as error:
            return error
        self._remember(tx, request, answer, account.now_us)
        return answer, False

    def _remember(self, tx: Transaction, request: _Mutation, answer: Answer, now_us: int) -> None:
        self._requests.remember(
            tx, request.request_id, request.fingerprint, encode(answer), now_us=now_us
        )

    async def _commit(self, operation: Operation[T], now_us: int) -> Committed[T]:
        while True:
            try:
                return await self._store.commit(operation)
            except SettlementDueError:
                await self._settle(operation.group, now_us)

    async def _settle(self, account_id: str, now_us: int) -> None:
        run = partial(
            settlement.settle, account_id=account_id, now_us=now_us, keep_us=self._keep_us
        )
        operation = Operation(run, account_id, (wallet_key(account_id),))
        while not (await self._store.commit(operation)).result:
            pass

    async def _read(
        self, account_id: str, query: Callable[..., T], at_least: int = 0
    ) -> Committed[T]:
        now_us = self._now_us()

        def run(tx: ReadTransaction) -> T:
            queries.require_settled(tx, account_id, now_us)
            return query(tx)

        while True:
            try:
                return await self._store.read(run, at_least_version=at_least)
            except SettlementDueError:
                await self._settle(account_id, now_us)


def _parts(indexes: Sequence[int], requests: Sequence[Debit]) -> Iterator[list[int]]:
    """Cuts the debits of an account into as few operations as the store's limit allows."""
    part: list[int] = []
    size_bytes = 0
    for index in indexes:
        size_bytes += _size_bytes(requests[index])
        if part and size_bytes > OPERATION_BYTES:
            yield part
            part, size_bytes = [], _size_bytes(requests[index])
        part.append(index)
    yield part


def _size_bytes(request: Debit) -> int:
    """More than what a debit reads and writes: the keys and values with these names in them."""
    meter = len(request.price.meter) if isinstance(request.price, Metered) else 0
    names = 3 * len(request.account_id) + 5 * len(request.request_id) + 4 * meter
    return 700 + names + len(request.resource.encode())
