"""Seeded random calls: every answer, refusal and entry is what the model says, on every engine."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import leases_pb2, ledger_pb2

from tests.support.credit_calls import CreditCalls, expected, model_tariff
from tests.support.credit_model.books import entry_name
from tests.support.credit_model.model import Message, Model, settle
from tests.support.credit_service import DAY_S, Account, Clock, CreditService, live, metered
from tests.support.ledger_audit import audit_account
from tests.support.store_homes import Home

CALLS = 500
ACCOUNTS = ("ann", "ben")
METERS = ("download", "upload", "probe", "none", "parcel", "scan")
WEIGHTS = {
    "Grant": 4,
    "VoidGrant": 1,
    "Debit": 4,
    "BatchDebit": 2,
    "StreamDebits": 1,
    "Refund": 3,
    "Reserve": 4,
    "Capture": 6,
    "ExtendHold": 2,
    "Release": 1,
    "OpenLease": 1,
    "SettleLease": 3,
    "SetAccountTerms": 1,
}


class Caller:
    """Makes random requests; about grants, holds and entries of which the model knows."""

    def __init__(self, seed: int, clock: Clock, model: Model) -> None:
        self.dice, self.clock, self.model = random.Random(seed), clock, model
        self.sent: list[tuple[str, Message]] = []
        self.numbers = 0

    def request(self) -> tuple[str, Message]:
        """The next one: new, one that was sent before, or another with a used request id."""
        dice = self.dice
        if self.sent and dice.random() < 0.08:
            return dice.choice(self.sent)
        (method,) = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
        make: Callable[[dict[str, Any]], Message] = getattr(self, f"_{method.lower()}")
        ids = self._ids()
        if self.sent and dice.random() < 0.02:
            old = dice.choice(self.sent)[1]
            ids["request_id"] = getattr(old, "request_id", ids["request_id"])
        self.sent.append((method, make(ids)))
        return self.sent[-1]

    def _ids(self) -> dict[str, Any]:
        self.numbers += 1
        return {"request_id": f"r{self.numbers}", "account_id": self.dice.choice(ACCOUNTS)}

    def _price(self) -> dict[str, Any]:
        if self.dice.random() < 0.5:
            return {"amount": self.dice.randrange(40)}
        meter = self.dice.choice(METERS)
        quantity = self.dice.randrange({"probe": 30, "parcel": 9}.get(meter, 5000))
        return {"metered": metered(meter, quantity, self.dice.choice(["HIT", "MISS"]))}

    def _grant(self, ids: dict[str, Any]) -> pb.GrantRequest:
        dice = self.dice
        currency, amount = dice.choice(["", "stamp"]), dice.randrange(1, 100)
        grant = pb.GrantRequest(**ids, currency=currency, amount=amount)
        if dice.random() < 0.3:
            grant.recurrence.period = dice.choice(pb.RefillPeriod.values()[1:])
            grant.recurrence.max_rollover = dice.choice([0, 10, 1000])
            if dice.random() < 0.3:
                grant.recurrence.end_time.CopyFrom(self.clock.after(40 * DAY_S))
            return grant
        grant.priority = dice.randrange(-1, 3)
        if dice.random() < 0.7:
            seconds = dice.choice([-1, 0.5, 5, 50, 5000, 40 * DAY_S])
            grant.expire_time.CopyFrom(self.clock.after(seconds))
        return grant

    def _voidgrant(self, ids: dict[str, Any]) -> pb.VoidGrantRequest:
        books = self.model.books(ids["account_id"])
        grant_id = books.grant_name(self._newest(books.grants))
        return pb.VoidGrantRequest(**ids, grant_id=grant_id, resource="bounced")

    def _debit(self, ids: dict[str, Any]) -> pb.DebitRequest:
        return pb.DebitRequest(**ids, **self._price(), resource="file")

    def _batchdebit(self, ids: dict[str, Any]) -> pb.BatchDebitRequest:
        debits = [self._debit(ids), *(self._debit(self._ids()) for _ in range(3))]
        together = self.dice.random() < 0.6
        return pb.BatchDebitRequest(debits=debits[::-1], all_or_nothing=together)

    def _streamdebits(self, ids: dict[str, Any]) -> pb.StreamDebitsRequest:
        return pb.StreamDebitsRequest(debits=[self._debit(ids), self._debit(self._ids())])

    def _refund(self, ids: dict[str, Any]) -> pb.RefundRequest:
        entry_id = entry_name(self._newest(self.model.books(ids["account_id"]).outlays))
        amount = self.dice.choice([0, 1, 7, 30])
        return pb.RefundRequest(**ids, entry_id=entry_id, amount=amount, resource="sorry")

    def _terms(self) -> dict[str, Any]:
        return {
            "time_to_live": live(self.dice.choice([0.5, 4, 400, 3 * DAY_S])),
            "expiry_policy": self.dice.choice(pb.ExpiryPolicy.values()),
            "excess_rule": self.dice.choice(pb.ExcessRule.values()),
        }

    def _reserve(self, ids: dict[str, Any]) -> pb.ReserveRequest:
        return pb.ReserveRequest(**ids, **self._price(), **self._terms(), resource="kept")

    def _capture(self, ids: dict[str, Any]) -> pb.CaptureRequest:
        final = self.dice.random() < 0.4
        return pb.CaptureRequest(**ids, **self._price(), hold_id=self._hold(ids), final=final)

    def _extendhold(self, ids: dict[str, Any]) -> pb.ExtendHoldRequest:
        price = self._price() if self.dice.random() < 0.6 else {}
        lives = live(self.dice.choice([1, 60, 5 * DAY_S]))
        return pb.ExtendHoldRequest(**ids, **price, hold_id=self._hold(ids), time_to_live=lives)

    def _release(self, ids: dict[str, Any]) -> pb.ReleaseRequest:
        return pb.ReleaseRequest(**ids, hold_id=self._hold(ids))

    def _openlease(self, ids: dict[str, Any]) -> leases_pb2.OpenLeaseRequest:
        amount, least = self.dice.randrange(1, 80), self.dice.choice([0, 1, 20])
        return leases_pb2.OpenLeaseRequest(
            **ids, **self._terms(), amount=amount, min_amount=least, owner="edge"
        )

    def _settlelease(self, ids: dict[str, Any]) -> leases_pb2.SettleLeaseRequest:
        dice = self.dice
        spendings = [
            leases_pb2.LeaseSpending(**self._price(), count=dice.choice([0, 3]), resource="line")
            for _ in range(dice.randrange(3))
        ]
        return leases_pb2.SettleLeaseRequest(
            **ids,
            hold_id=self._hold(ids, leased=dice.random() < 0.95),
            owner="other" if dice.random() < 0.05 else "edge",
            spendings=spendings,
            target_amount=dice.choice([0, 50]),
            time_to_live=dice.choice([None, live(60), live(3 * DAY_S)]),
            final=dice.random() < 0.2,
        )

    def _setaccountterms(self, ids: dict[str, Any]) -> ledger_pb2.SetAccountTermsRequest:
        limit, shadow = self.dice.choice([None, 0, 50]), self.dice.choice([None, True, False])
        return ledger_pb2.SetAccountTermsRequest(**ids, overdraft_limit=limit, shadow=shadow)

    def _hold(self, ids: dict[str, Any], *, leased: bool | None = None) -> str:
        """One of the newest, in any state; seldom a lease unless it is to be one."""
        leased = self.dice.random() < 0.05 if leased is None else leased
        books = self.model.books(ids["account_id"])
        known = [number for number, hold in books.holds.items() if bool(hold.owner) == leased]
        return books.hold_name(self._newest(known))

    def _newest(self, numbers: Iterable[int]) -> int:
        """One of the newest, or none."""
        return self.dice.choice([0xFFFF, *list(numbers)[-8:]])


def test_the_model_knows_nothing_of_the_service() -> None:
    program = "import sys, tests.support.credit_model.model; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert not [name for name in done.stdout.decode().split() if name.startswith("services")]


async def test_every_answer_and_entry_is_what_the_model_says(home: Home, seed: int) -> None:
    clock, model = Clock(), Model(model_tariff())
    store = await home.open()
    service, caller = CreditService(store, clock), Caller(seed, clock, model)
    calls = CreditCalls(service)
    for number in range(CALLS):
        before_us = clock.now_us
        clock.advance(caller.dice.choice([0, 0, 0.001, 0.4, 3, 3, 500]))
        if caller.dice.random() < 0.03:
            clock.advance(caller.dice.choice([DAY_S, 8 * DAY_S, 31 * DAY_S, -DAY_S]))
        _see_that_looking_changes_nothing(model, before_us, clock.now_us)
        method, request = caller.request()
        found = await calls.outcome(method, request)
        said = expected(model, method, request, clock.now_us)
        assert found == said, f"call {number}, {method}: {request}"
        # Of another account, what is due stays due.
        for account_id in sorted(
            {each.account_id for each in getattr(request, "debits", [request])}
        ):
            await _compare(Account(service.direct, account_id), model, clock, number)
    for account_id in ACCOUNTS:
        account = Account(service.direct, account_id)
        await _compare(account, model, clock, CALLS)
        assert await account.usage() == model.usage(account_id)
        assert await account.holds() == model.holds(account_id, clock.now_us)
        await audit_account(service.direct, account_id)
    await store.close()


async def _compare(account: Account, model: Model, clock: Clock, number: int) -> None:
    for currency in ("credit", "stamp"):
        balance = (await account.balance(currency)).balance
        assert balance == model.balance(account.account_id, currency, clock.now_us), number
    newest = await account.entries(newest_first=True)
    ledger = model.entries(account.account_id, clock.now_us)
    assert newest[:20] == ledger[:-21:-1], f"after call {number}"


def _see_that_looking_changes_nothing(model: Model, before_us: int, now_us: int) -> None:
    """What time does comes to the same whether one looks late or once in between."""
    between_us = (before_us + now_us) // 2
    for account_id in ACCOUNTS if between_us < now_us else ():
        late, early = model.books(account_id).draft(), model.books(account_id).draft()
        settle(late, now_us)
        settle(early, between_us)
        settle(early, now_us)
        assert early.purses == late.purses
