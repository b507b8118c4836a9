"""The ledger: applies each mutation once, and answers what accounts have.

Builds the operations that run inside the store; everything that they decide is in pure functions of
a transaction (``grants``, ``debits``, ``holds``, ``settlement``, ``queries``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from services.credits import grants, hold_pages, holds, queries, refunds, settlement
from services.credits.account import Account, usage_key, wallet_key
from services.credits.batches import debit_together
from services.credits.captures import Capture, capture
from services.credits.debits import Debit, Price
from services.credits.export import halved
from services.credits.grants import Grant, VoidGrant, grant, void_grant
from services.credits.hold_pages import HoldPage
from services.credits.holds import HoldTerms, Release, release
from services.credits.leases import OpenLease, SettleLease, open_lease, settle_lease
from services.credits.parcels import Applied, DebitTerms, Parcels, collected, group_of
from services.credits.queries import BalanceView, EntryPage, UsageLines
from services.credits.records import Answer, Metered, decode_answer
from services.credits.refunds import Refund, refund
from services.credits.reservations import ExtendHold, Reserve, extend, reserve
from services.credits.settlement import SettlementDueError, opened
from services.credits.streams import DebitStream, Streamed
from services.credits.tariff import Tariff
from services.credits.terms import SetTerms, TermsView, set_terms, terms
from services.credits.watch import Change, Watches, purse_of
from services.rpc.errors import ServiceError
from services.store.pages import DEFAULT_SIZE
from services.store.port import Committed, Operation, ReadTransaction, Store, Transaction
from services.store.records import encode
from services.store.requests import RequestRecords

T = TypeVar("T")

Clock = Callable[[], int]
"""Microseconds since 1970, UTC."""


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
        self,
        store: Store,
        tariff: Tariff,
        requests: RequestRecords,
        *,
        keep_s: int,
        now_us: Clock,
        watches: Watches | None = None,
    ) -> None:
        """``keep_s``: for how many seconds a closed hold is still known as such."""
        self.watches = Watches() if watches is None else watches
        self._store = store
        self._tariff = tariff
        self._requests = requests
        self._keep_us = keep_s * 1_000_000
        self._now_us = now_us
        self._debit_terms = DebitTerms(tariff, requests, self._keep_us, now_us)
        self._parcels = Parcels(store, self._debit_terms, self._settle, self.watches)

    @property
    def tariff(self) -> Tariff:
        """What metered quantities cost."""
        return self._tariff

    async def grant(self, request: Grant) -> Applied:
        """Adds credit."""
        return await self._apply(request, lambda account: grant(account, request))

    async def void_grant(self, request: VoidGrant) -> Applied:
        """Takes a grant back."""
        reads = grants.keys(request.account_id, request.grant_id)
        return await self._apply(request, partial(void_grant, request=request), reads)

    async def refund(self, request: Refund) -> Applied:
        """Reverses a debit or capture."""
        reads = refunds.keys(request.account_id, request.entry_id)
        return await self._apply(request, partial(refund, request=request), reads)

    def debit(self, request: Debit) -> asyncio.Future[Applied]:
        """Takes credit."""
        return self._parcels.add(request)

    async def reserve(self, request: Reserve) -> Applied:
        """Sets credit aside."""
        return await self._apply(request, lambda account: reserve(account, request, self._tariff))

    async def capture(self, request: Capture) -> Applied:
        """Debits a hold."""
        work = partial(capture, request=request, terms=self._hold_terms())
        reads = holds.keys(request.account_id, request.hold_id)
        return await self._apply(request, work, reads, request.price)

    async def extend_hold(self, request: ExtendHold) -> Applied:
        """Prolongs a hold."""
        work = partial(extend, request=request, tariff=self._tariff)
        reads = holds.keys(request.account_id, request.hold_id)
        return await self._apply(request, work, reads)

    async def open_lease(self, request: OpenLease) -> Applied:
        """Sets credit aside for an owner."""
        return await self._apply(request, partial(open_lease, request=request))

    async def settle_lease(self, request: SettleLease) -> Applied:
        """Captures what the owner of a lease spent."""
        work = partial(settle_lease, request=request, terms=self._hold_terms())
        reads = holds.keys(request.account_id, request.hold_id)
        return await self._apply(request, work, reads)

    async def release(self, request: Release) -> Applied:
        """Gives a hold back."""
        work = partial(release, request=request, terms=self._hold_terms())
        reads = holds.keys(request.account_id, request.hold_id)
        return await self._apply(request, work, reads)

    async def hold(self, account_id: str, hold_id: str, at_least: int = 0) -> HoldPage:
        """One hold in any state; raises ``HoldNotFoundError``."""
        run = partial(hold_pages.one, account_id=account_id, hold_id=hold_id)
        read = await self._read(account_id, run, at_least)
        return read.result._replace(version=read.version)

    async def open_holds(
        self, account_id: str, *, size: int = 0, token: str = "", at_least: int = 0
    ) -> HoldPage:
        """A page of an account's open holds; raises ``PageTokenInvalidError`` of the store."""
        run = partial(hold_pages.page, account_id=account_id, token=token)
        read = await halved(
            lambda size: self._read(account_id, partial(run, size=size), at_least),
            size or DEFAULT_SIZE,
        )
        return read.result._replace(version=read.version)

    async def batch_debit(self, requests: Sequence[Debit]) -> list[Applied | ServiceError]:
        """Each debit's own outcome, in order."""
        return await collected(self._parcels.add_all(requests), len(requests))

    async def debit_together(self, requests: Sequence[Debit]) -> list[Applied | ServiceError]:
        """All or none of them; see ``batches``."""
        outcomes = await debit_together(self._store, self._debit_terms, self._settle, requests)
        self.watches.changed(request.account_id for request in requests)
        return outcomes

    def debit_stream(
        self, debits: AsyncIterator[Sequence[Debit]]
    ) -> AsyncGenerator[Streamed, None]:
        """Debits without end; see ``streams``. Close it (``aclose``) to end it early."""
        return DebitStream(self._parcels).outcomes(debits)

    async def set_terms(self, request: SetTerms) -> Applied:
        """Changes the terms of an account."""
        return await self._apply(request, partial(set_terms, request=request))

    async def terms(self, account_id: str, currency: str, at_least: int = 0) -> TermsView:
        """The terms of an account in a currency."""
        run = partial(terms, account_id=account_id, currency=currency)
        read = await self._read(account_id, run, at_least)
        return read.result._replace(version=read.version)

    async def balance(self, account_id: str, currency: str, at_least: int = 0) -> BalanceView:
        """What an account has in a currency; at least as fresh as the version ``at_least``."""
        run = partial(queries.balance, account_id=account_id, currency=currency)
        read = await self._read(account_id, run, at_least)
        return read.result._replace(version=read.version)

    def watch(
        self,
        account_id: str,
        currency: str,
        thresholds: Sequence[int] = (),
        *,
        crossings_only: bool = False,
        at_least: int = 0,
    ) -> AsyncGenerator[Change, None]:
        """The balance now, and again whenever it changed; see ``Watches.follow``."""
        run = partial(purse_of, account_id=account_id, currency=currency)
        read = partial(self._read, account_id, run, at_least)
        return self.watches.follow(account_id, read, thresholds, crossings_only=crossings_only)

    async def entries(
        self,
        account_id: str,
        *,
        size: int = 0,
        token: str = "",
        newest_first: bool = False,
        at_least: int = 0,
    ) -> EntryPage:
        """A page of an account's ledger; raises ``PageTokenInvalidError`` of the store.

        Of large entries it has as many as one read of the store may hold.
        """
        run = partial(
            queries.entries, account_id=account_id, token=token, newest_first=newest_first
        )
        read = await halved(
            lambda size: self._read(account_id, partial(run, size=size), at_least),
            size or DEFAULT_SIZE,
        )
        return read.result._replace(version=read.version)

    async def usage(
        self,
        account_id: str,
        start_us: int | None,
        end_us: int | None,
        period: queries.UsagePeriod = queries.UsagePeriod.WHOLE,
    ) -> UsageLines:
        """Usage by meter, from the UTC day of ``start_us`` to before that of ``end_us``."""
        total = queries.UsageTotal(account_id, start_us, end_us, period)
        while True:
            read = await self._read(account_id, total.next_part)
            if total.add(read.result):
                return total.lines(read.version)

    async def settle(self, account_id: str) -> None:
        """Applies what time did to an account; safe to repeat."""
        await self._settle(account_id, self._now_us())

    async def _apply(
        self,
        request: _Mutation,
        work: Callable[[Account], Answer],
        more_reads: tuple[bytes, ...] = (),
        price: Price = 0,
    ) -> Applied:
        now_us = self._now_us()
        keep_us = self._kept_us(now_us)
        account_id = request.account_id

        def run(tx: Transaction) -> tuple[Answer, bool]:
            earlier = self._requests.replay(tx, request.request_id, request.fingerprint)
            if earlier is not None:
                return decode_answer(earlier), True
            account = opened(tx, account_id, now_us=now_us, keep_us=keep_us)
            answer = work(account)
            account.save()
            self._remember(tx, request, answer, now_us)
            return answer, False

        reads = [self._requests.key(request.request_id), wallet_key(account_id), *more_reads]
        if isinstance(price, Metered) and (currency := self._tariff.currency(price.meter)):
            reads.append(usage_key(account_id, now_us, price, currency))
        operation = Operation(run, group_of(account_id), tuple(reads))
        committed = await self._commit(operation, account_id, now_us)
        return Applied(*committed.result, committed.version)

    def _remember(self, tx: Transaction, request: _Mutation, answer: Answer, now_us: int) -> None:
        self._requests.remember(
            tx, request.request_id, request.fingerprint, encode(answer), now_us=now_us
        )

    async def _commit(self, operation: Operation[T], account_id: str, now_us: int) -> Committed[T]:
        while True:
            try:
                committed = await self._store.commit(operation)
            except SettlementDueError:
                await self._settle(account_id, now_us)
            else:
                self.watches.changed((account_id,))
                return committed

    async def _settle(self, account_id: str, now_us: int) -> None:
        run = partial(
            settlement.settle,
            account_id=account_id,
            now_us=now_us,
            keep_us=self._kept_us(now_us),
        )
        operation = Operation(run, group_of(account_id), (wallet_key(account_id),))
        while not (await self._store.commit(operation)).result:
            pass
        self.watches.changed((account_id,))

    def _kept_us(self, now_us: int) -> int:
        """How long from ``now_us`` on a hold that is closed then is still known."""
        return self._keep_us + self._requests.ahead_us(now_us)

    def _hold_terms(self) -> HoldTerms:
        return HoldTerms(self._tariff, self._kept_us(self._now_us()))

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
