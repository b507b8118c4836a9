"""A state machine's hold on the credit service: calls, and the model's word on each of them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.json_format import Parse
from hypothesis.stateful import RuleBasedStateMachine, invariant
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2

from tests.support.credit_calls import CreditCalls, Outcome, expected, model_tariff
from tests.support.credit_domains import ACCOUNTS, CURRENCIES
from tests.support.credit_model.books import Refused, entry_name
from tests.support.credit_model.model import Message, Model
from tests.support.credit_service import Clock, CreditService
from tests.support.ledger_audit import audit_account
from tests.support.store_homes import open_home

T = TypeVar("T")

NEWEST = 30
"""Entries that are compared after each step."""


class CreditMachine(RuleBasedStateMachine):
    """One service on one store, and one caller; the rules are the subclass's.

    After each step, what it touched is compared; in the end everything, and the ledger is audited.
    """

    engine = "lmdb"
    store_seed = 0
    """Decides what goes wrong in a simulated store."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.opened = AsyncExitStack()
        self.clock = Clock()
        self.model = Model(model_tariff())
        self.sent: list[tuple[str, Message]] = []
        self.version = 0
        self._numbers = 0
        self._touched: set[str] = set()
        self._sound = True
        self.run(self._begin())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs something to its end; whatever differs there, nothing is looked at afterwards."""
        self._sound = False
        done = self.runner.run(work)
        self._sound = True
        return done

    def call(self, method: str, request: Message, shift: float = 0) -> Outcome:
        """Calls the service and the model after so many seconds; they must answer the same."""
        self.clock.advance(shift)
        found = self.run(self.calls.outcome(method, request))
        said = expected(self.model, method, request, self.clock.now_us)
        self._sound = found == said
        assert found == said, f"{method}: {request}\nfound {found}\nthe model says {said}"
        self.sent.append((method, request))
        debits = getattr(request, "debits", None)
        self._touched |= {each.account_id for each in ([request] if debits is None else debits)}
        return found

    def ids(self, account_id: str) -> dict[str, Any]:
        """Of a new request."""
        self._numbers += 1
        return {"request_id": f"r{self._numbers}", "account_id": account_id}

    def grants(self, account_id: str) -> list[str]:
        """Names of grants, the newest last."""
        books = self.model.books(account_id)
        return [books.grant_name(number) for number in books.grants]

    def holds(self, account_id: str, *, leased: bool = False) -> list[str]:
        """Names of holds, open or not, or of leases."""
        books = self.model.books(account_id)
        return [books.hold_name(n) for n, hold in books.holds.items() if bool(hold.owner) == leased]

    def entries(self, account_id: str) -> list[str]:
        """Names of debits and captures."""
        return [entry_name(number) for number in self.model.books(account_id).outlays]

    async def restart(self) -> None:
        """Another process takes the store over."""
        self.version = self.calls.version
        await self.store.close()
        await self._start()

    async def settle(self) -> None:
        """Applies what is due, as the sweeper does."""
        for account_id in ACCOUNTS:
            await self.service.ledger.settle(account_id)
        self.model.settle(self.clock.now_us)

    @invariant()
    def what_was_touched_is_what_the_model_says(self) -> None:
        """After each step. Other accounts are not looked at: that would settle them."""
        touched, self._touched = self._touched, set()
        for account_id in sorted(touched):
            self.run(self._compare(account_id))

    def teardown(self) -> None:
        """Compares everything, unless something differed before."""
        try:
            if self._sound:
                self.run(self._audit())
        finally:
            self.run(self.store.close())
            self.run(self.opened.aclose())
            self.runner.close()

    async def _begin(self) -> None:
        directory = self.opened.enter_context(tempfile.TemporaryDirectory())
        home = open_home(self.engine, Path(directory), self.store_seed)
        self.home = await self.opened.enter_async_context(home)
        await self._start()

    async def _start(self) -> None:
        self.store = await self.home.open()
        self.service = CreditService(self.store, self.clock)
        self.calls = CreditCalls(self.service, self.version)

    async def _audit(self) -> None:
        for account_id in ACCOUNTS:
            await self._compare(account_id, newest=1000)
            await self._compare_lists(account_id)
            if await self._usage_is_the_models(account_id, pb.USAGE_PERIOD_UNSPECIFIED):
                await audit_account(self.service.direct, account_id)
        progress = await self.calls.messages("Audit", ledger_pb2.AuditRequest())
        assert progress[-1].done, progress[-1]

    async def _compare(self, account_id: str, newest: int = NEWEST) -> None:
        now_us, model = self.clock.now_us, self.model
        for currency in CURRENCIES:
            request = pb.GetBalanceRequest(account_id=account_id, currency=currency)
            answer = await self.calls("GetBalance", request)
            balance = answer.balance
            _same([balance], [model.balance(account_id, currency, now_us)])
            gone = balance.held + balance.spent + balance.expired + balance.voided
            assert balance.granted == balance.available + gone
            given = [grant for grant in answer.grants if grant.grant_id]
            _same(given, model.grants(account_id, currency, now_us))
        page = pb.ListEntriesRequest(account_id=account_id, page_size=newest, newest_first=True)
        entries = list((await self.calls("ListEntries", page)).entries)
        _same(entries[::-1], model.entries(account_id, now_us)[-newest:])

    async def _compare_lists(self, account_id: str) -> None:
        now_us, model = self.clock.now_us, self.model
        page = pb.ListHoldsRequest(account_id=account_id, page_size=1000)
        opened = list((await self.calls("ListHolds", page)).holds)
        _same(opened, model.holds(account_id, now_us))
        for number in model.books(account_id).holds:
            hold_id = model.books(account_id).hold_name(number)
            one = pb.GetHoldRequest(account_id=account_id, hold_id=hold_id)
            hold = (await self.calls("GetHold", one)).hold
            _same([hold], [model.hold(account_id, hold_id, now_us)])
        export = ledger_pb2.ExportEntriesRequest(account_id=account_id)
        parts = await self.calls.messages("ExportEntries", export)
        lines = b"".join(part.data for part in parts).splitlines()
        _same([Parse(line, pb.Entry()) for line in lines], model.entries(account_id, now_us))
        for period in pb.UsagePeriod.values():
            await self._usage_is_the_models(account_id, period)
        for currency in CURRENCIES:
            asked = ledger_pb2.GetAccountTermsRequest(account_id=account_id, currency=currency)
            watched = pb.WatchBalanceRequest(account_id=account_id, currency=currency)
            (first,) = await self.calls.messages("WatchBalance", watched, most=1)
            _same([first.balance], [model.balance(account_id, currency, now_us)])
            terms = (await self.calls("GetAccountTerms", asked)).terms
            _same([terms], [model.terms(account_id, currency)])

    async def _usage_is_the_models(self, account_id: str, period: pb.UsagePeriod.ValueType) -> bool:
        """Compares it; says whether it could be told, as its sums are within 64 bits."""
        asked = pb.GetUsageRequest(account_id=account_id, period=period)
        found, answer = await self.calls.outcome("GetUsage", asked)
        try:
            said = "OK", self.model.usage(account_id, period)
        except Refused as refused:
            said = refused.reason, []
        assert (found, list(answer.usage) if found == "OK" else []) == said
        return found == "OK"


def _same(found: Sequence[Message], said: Sequence[Message]) -> None:
    """Shows the first difference alone."""
    for one, other in zip(found, said, strict=False):
        assert one == other, f"found {one}\nthe model says {other}"
    assert len(found) == len(said), f"{len(found)} found; the model says {len(said)}"


def one_of(names: Callable[[str], list[str]], who: str, back: int) -> str:
    """One of an account's newest names; another account's if it has none."""
    found = names(who) or [name for other in ACCOUNTS for name in names(other)]
    return found[-1 - back % len(found)]


def any_of(names: Callable[[str], list[str]]) -> bool:
    """Whether any account has one."""
    return any(names(who) for who in ACCOUNTS)
