"""The ledger under everything at once, on every engine.

Clients make random calls on few accounts, repeat them, send them twice at once, give up in the
middle and ask again, while time passes, the sweeper sweeps, and (where the engine simulates it)
commits fail in every way and processes crash. Whatever happens: no account falls below zero, a
request is applied once, its answer never changes, and the books agree to the unit.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any

from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import (
    GrantNotOpenError,
    HoldNotOpenError,
    InsufficientCreditError,
    RefundExceedsEntryError,
)
from services.rpc.errors import InvalidArgumentError, ServiceError
from services.store.errors import StoreOverloadedError, StoreUnavailableError
from services.store.port import Store
from tests.support.credit_service import Account, Clock, CreditService, metered
from tests.support.ledger_audit import audit_account
from tests.support.store_homes import Home, SimulatedHome

ACCOUNTS = ("alice", "bob", "carol")
CLIENTS = 12
CALLS = 50
REFUSALS = (
    InsufficientCreditError,
    HoldNotOpenError,
    GrantNotOpenError,
    RefundExceedsEntryError,
    InvalidArgumentError,  # a grant that would have expired by the time it is asked for again
)
RETRYABLE = (StoreUnavailableError, StoreOverloadedError)

Request = Any
Answer = Any


class Chaos:
    """The services, and what their clients were told."""

    def __init__(self, home: Home, seed: int) -> None:
        self.home = home
        self.dice = random.Random(seed)
        self.clock = Clock()
        self.stores: list[Store] = []
        self.services: list[CreditService] = []
        self.holds: list[pb.Hold] = []
        self.leases: list[pb.Hold] = []
        self.grants: list[tuple[str, str]] = []
        self.entries: list[tuple[str, str]] = []
        """Accounts and names, of grants and of what can be refunded."""
        self.answers: dict[str, tuple[str, Request, Answer]] = {}
        self.refused = self.retried = self.crashes = 0

    async def start(self) -> None:
        self.stores = await self.home.open_all(3)
        self.services = [CreditService(store, self.clock) for store in self.stores]

    async def stop(self) -> None:
        for store in self.stores:
            await store.close()

    async def client(self, number: int) -> None:
        for call in range(CALLS):
            account = Account(_Recorder(self), self.dice.choice(ACCOUNTS))  # type: ignore[arg-type]  # as a stub
            with contextlib.suppress(*REFUSALS):
                await self._random_call(account, f"{number}-{call}")
            self.clock.advance(self.dice.random() * 0.2)

    async def disturb(self) -> None:
        """Sweeps, looks at balances, and crashes what can be crashed, until it is cancelled."""
        for turn in itertools.count(1):
            for _ in range(self.dice.randrange(20)):
                await asyncio.sleep(0)
            with contextlib.suppress(*RETRYABLE):
                await self._service().sweeper.sweep()
                for account_id in ACCOUNTS:
                    request = pb.GetBalanceRequest(account_id=account_id)
                    balance = (await self._service().direct.GetBalance(request)).balance
                    assert min(balance.available, balance.held) >= 0
                    parts = balance.available + balance.held + balance.spent + balance.expired
                    assert parts + balance.voided == balance.granted
            if isinstance(self.home, SimulatedHome) and turn % 5 == 0:
                self.home.cluster.crash()
                self.crashes += 1
                crashed, self.stores = self.stores, []
                for store in crashed:
                    await store.close()
                await self.start()

    async def call(self, method: str, request: Request) -> Answer:
        """Calls until there is an answer or a refusal; sometimes more often than needed."""
        while True:
            try:
                answer = await self._attempt(method, request)
            except RETRYABLE:
                self.retried += 1
                await asyncio.sleep(0)
                continue
            except ServiceError:
                self.refused += 1
                raise
            if answer is not None:
                break
        self._record(method, request, answer)
        if self.dice.random() < 0.2:
            self._record(method, request, await self.call(method, request))
        return answer

    async def verify(self) -> None:
        """Each answer again, and every account's books."""
        for method, request, _ in list(self.answers.values()):
            again = await self._until_answered(method, request)
            assert again.replayed
            self._record(method, request, again)
        self.clock.advance(60)
        await self._service().sweeper.sweep()
        known = set(self.answers)
        for account_id in ACCOUNTS:
            audit = await audit_account(self._service().direct, account_id, until_settled=True)
            made = {entry.request_id for entry in audit.entries if entry.request_id}
            mine = {r.request_id for _, r, _ in self.answers.values() if r.account_id == account_id}
            assert mine <= made, "an acknowledged call is not in the ledger"
            known -= made
        assert not known

    async def _until_answered(self, method: str, request: Request) -> Answer:
        while True:
            with contextlib.suppress(*RETRYABLE):
                return await self._send(method, request)

    async def _attempt(self, method: str, request: Request) -> Answer | None:
        way = self.dice.random()
        if way < 0.1:
            sent = asyncio.create_task(self._send(method, request))
            for _ in range(self.dice.randrange(15)):
                await asyncio.sleep(0)
            sent.cancel()
            await asyncio.wait([sent])
            return None  # the caller gave up; what became of it shows when it asks again
        if way < 0.2:
            twice = [self._send(method, request) for _ in range(2)]
            one, other = await asyncio.gather(*twice, return_exceptions=True)
            if isinstance(one, BaseException) or isinstance(other, BaseException):
                return None
            assert (one.replayed, other.replayed) != (False, False)
            self._record(method, request, one)
            return other
        return await self._send(method, request)

    async def _send(self, method: str, request: Request) -> Answer:
        return await getattr(self._service().direct, method)(request)

    def _service(self) -> CreditService:
        return self.dice.choice(self.services)

    def _record(self, method: str, request: Request, answer: Answer) -> None:
        """Keeps an answer, or holds it against the one that the same request had before."""
        plain = type(answer)()
        plain.CopyFrom(answer)
        plain.ClearField("version")
        plain.ClearField("replayed")
        earlier = self.answers.setdefault(request.request_id, (method, request, plain))
        assert earlier[2] == plain, f"{method} {request.request_id} has two answers"

    async def _random_call(self, account: Account, request_id: str) -> None:
        dice, ids = self.dice, dict[str, Any](request_id=request_id)
        quantity = metered("download", dice.randrange(20_000), dice.choice(["HIT", "MISS"]))
        mine = [hold for hold in self.holds if hold.account_id == account.account_id]
        kinds = ["grant", "debit", "meter", "batch", "reserve", "hold", "lease", "correction"]
        kind = dice.choice([*kinds, "debit", "hold"])
        if kind == "grant":
            expire_time = (
                self.clock.after(dice.choice([0.5, 2, 10])) if dice.random() < 0.5 else None
            )
            amount, priority = dice.randrange(1, 100), dice.randrange(3)
            made = await account.grant(amount, expire_time=expire_time, priority=priority, **ids)
            self.grants.append((account.account_id, made.grant_id))
        elif kind == "debit":
            debited = await account.debit(dice.randrange(30), **ids)
            self.entries.append((account.account_id, debited.entry_id))
        elif kind == "lease":
            await self._lease(account, ids)
        elif kind == "correction":
            await self._correction(account, ids)
        elif kind == "meter":
            await account.debit(metered=quantity, **ids)
        elif kind == "batch":
            await self._batch(account, request_id)
        elif kind == "reserve" or not mine:
            policy = dice.choice([pb.EXPIRY_POLICY_RELEASE, pb.EXPIRY_POLICY_DEBIT_ESTIMATE])
            seconds = dice.choice([0.3, 1, 5])
            answer = await account.reserve(
                metered=quantity, seconds=seconds, expiry_policy=policy, **ids
            )
            self.holds.append(answer.hold)
        elif dice.random() < 0.2:
            await account.release(dice.choice(mine), **ids)
        elif dice.random() < 0.2:
            await account.extend_hold(dice.choice(mine), dice.randrange(9), seconds=2, **ids)
        else:
            final = dice.random() < 0.5
            captured = await account.capture(
                dice.choice(mine), metered=quantity, final=final, **ids
            )
            self.entries.append((account.account_id, captured.entry_id))

    async def _lease(self, account: Account, ids: dict[str, Any]) -> None:
        """Opens a lease, or settles one that is there; a settlement may be late."""
        dice = self.dice
        mine = [lease for lease in self.leases if lease.account_id == account.account_id]
        if not mine or dice.random() < 0.3:
            policy = dice.choice([pb.EXPIRY_POLICY_RELEASE, pb.EXPIRY_POLICY_DEBIT_ESTIMATE])
            seconds = dice.choice([0.5, 3])
            answer = await account.open_lease(
                50, min_amount=1, seconds=seconds, expiry_policy=policy, **ids
            )
            self.leases.append(answer.hold)
            return
        spendings = [dice.randrange(20), metered("download", dice.randrange(5000))]
        final, target = dice.random() < 0.3, dice.choice([0, 50])
        await account.settle(
            dice.choice(mine), *spendings, target_amount=target, final=final, **ids
        )

    async def _correction(self, account: Account, ids: dict[str, Any]) -> None:
        """Voids a grant or refunds a debit of the account, or grants when it has none."""
        dice = self.dice
        grants = [name for owner, name in self.grants if owner == account.account_id]
        entries = [name for owner, name in self.entries if owner == account.account_id]
        if entries and dice.random() < 0.7:
            await account.refund(dice.choice(entries), dice.randrange(9), **ids)
        elif grants and dice.random() < 0.5:
            await account.void(dice.choice(grants), **ids)
        else:
            recurrence = pb.Recurrence(period=pb.REFILL_PERIOD_DAY, max_rollover=5)
            made = await account.grant(dice.randrange(1, 50), recurrence=recurrence, **ids)
            self.grants.append((account.account_id, made.grant_id))

    async def _batch(self, account: Account, request_id: str) -> None:
        debits = [
            account.debit_request(self.dice.randrange(9), request_id=f"{request_id}-{index}")
            for index in range(self.dice.randrange(1, 8))
        ]
        debits.append(self.dice.choice(debits))
        response = None
        while response is None:
            with contextlib.suppress(*RETRYABLE):
                response = await self._send("BatchDebit", pb.BatchDebitRequest(debits=debits))
        for debit, outcome in zip(debits, response.outcomes, strict=True):
            if outcome.HasField("debit"):
                self._record("Debit", debit, outcome.debit)


class _Recorder:
    """A stub whose calls go through ``Chaos.call``."""

    def __init__(self, chaos: Chaos) -> None:
        self._chaos = chaos

    def __getattr__(self, method: str) -> Callable[[Request], Awaitable[Answer]]:
        return lambda request: self._chaos.call(method, request)


async def test_whatever_happens_the_books_agree_and_each_request_is_applied_once(
    home: Home, seed: int
) -> None:
    chaos = Chaos(home, seed)
    await chaos.start()
    disturbance = asyncio.create_task(chaos.disturb())
    async with asyncio.TaskGroup() as clients:
        for number in range(CLIENTS):
            clients.create_task(chaos.client(number))
    assert not disturbance.done() or disturbance.result() is None
    disturbance.cancel()
    await asyncio.wait([disturbance])
    if isinstance(home, SimulatedHome):
        assert chaos.crashes
        assert chaos.retried
    await chaos.stop()
    await chaos.start()
    await chaos.verify()
    await chaos.stop()
    assert chaos.refused
    assert len(chaos.answers) > CLIENTS * CALLS / 2
