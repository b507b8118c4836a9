"""Seeded random calls: every answer, refusal and entry is what the model says, on every engine."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2

from services.rpc.errors import ServiceError
from services.store.errors import RequestIdReusedError
from tests.support.credit_model.books import Refused
from tests.support.credit_model.model import Message, Model
from tests.support.credit_model.prices import Meter
from tests.support.credit_service import PRICES, Account, Clock, CreditService, live, metered
from tests.support.ledger_audit import audit_account
from tests.support.store_homes import ENGINES, Home, open_home

CALLS = 600
ACCOUNTS = ("ann", "ben")


@pytest.fixture
def seed() -> int:
    """A fresh seed for each run, printed; ``TEST_SEED`` repeats one."""
    seed = int(os.environ.get("TEST_SEED") or random.randrange(2**32))
    print(f"TEST_SEED={seed}")  # noqa: T201 (shown with a failure)
    return seed


@pytest.fixture(params=ENGINES)
async def home(request: pytest.FixtureRequest, tmp_path: Path, seed: int) -> AsyncIterator[Home]:
    async with open_home(request.param, tmp_path, seed) as home:
        yield home


def _tariff() -> dict[str, Meter]:
    return {
        name: Meter(
            price.currency,
            Fraction(price.miss),
            Fraction(price.miss if price.hit is None else price.hit),
            price.free,
            price.free_period,
            price.minimum,
            price.shadow,
        )
        for name, price in PRICES.items()
    }


class Caller:
    """Makes random requests."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self.dice, self.clock = random.Random(seed), clock
        unknown = pb.Hold(hold_id="hold-1-00000000")
        self.holds = {name: [unknown] for name in ACCOUNTS}
        self.sent: list[tuple[str, Any]] = []

    def request(self, number: int) -> tuple[str, Any]:
        dice = self.dice
        if self.sent and dice.random() < 0.1:
            method, request = dice.choice(self.sent)
            if method != "Capture":
                return method, request
        account_id = dice.choice(ACCOUNTS)
        again = self.sent and dice.random() < 0.02
        request_id = dice.choice(self.sent)[1].request_id if again else f"r{number}"
        ids = {"request_id": request_id, "account_id": account_id}
        method = dice.choice(
            ["Grant", "Debit", "Debit", "Reserve", "Reserve", "Capture", "Capture", "Release"]
        )
        if dice.random() < 0.03:
            method = "SetAccountTerms"
        self.sent.append((method, getattr(self, f"_{method.lower()}")(ids)))
        return self.sent[-1]

    def _price(self, *more: str) -> dict[str, Any]:
        meter = self.dice.choice(["download", "upload", "probe", "none", "parcel", *more])
        quantity = self.dice.randrange(5000) if meter != "probe" else self.dice.randrange(30)
        result = self.dice.choice(["HIT", "MISS", "UNSPECIFIED"])
        if self.dice.random() < 0.5:
            return {"metered": metered(meter, quantity, result)}
        return {"amount": self.dice.randrange(40)}

    def _grant(self, ids: dict[str, Any]) -> pb.GrantRequest:
        times = [self.clock.after(s) for s in (-1, 0.5, 5, 50, 5000)]
        expire_time = self.dice.choice([None, *times])
        amount, priority = self.dice.randrange(1, 100), self.dice.randrange(-1, 3)
        return pb.GrantRequest(**ids, amount=amount, priority=priority, expire_time=expire_time)

    def _debit(self, ids: dict[str, Any]) -> pb.DebitRequest:
        return pb.DebitRequest(**ids, **self._price("scan"), resource="file")

    def _reserve(self, ids: dict[str, Any]) -> pb.ReserveRequest:
        policy = self.dice.choice(pb.ExpiryPolicy.values())
        rule = self.dice.choice(pb.ExcessRule.values())
        return pb.ReserveRequest(
            **ids,
            **self._price(),
            time_to_live=live(self.dice.choice([0.5, 4, 400])),
            expiry_policy=policy,
            excess_rule=rule,
            resource="kept",
        )

    def _capture(self, ids: dict[str, Any]) -> pb.CaptureRequest:
        final = self.dice.random() < 0.4
        return pb.CaptureRequest(
            **ids, **self._price(), hold_id=self._hold(ids, late=False), final=final
        )

    def _release(self, ids: dict[str, Any]) -> pb.ReleaseRequest:
        return pb.ReleaseRequest(**ids, hold_id=self._hold(ids))

    def _setaccountterms(self, ids: dict[str, Any]) -> ledger_pb2.SetAccountTermsRequest:
        limit, shadow = self.dice.choice([None, 0, 50]), self.dice.choice([None, True, False])
        return ledger_pb2.SetAccountTermsRequest(**ids, overdraft_limit=limit, shadow=shadow)

    def _hold(self, ids: dict[str, Any], *, late: bool = True) -> str:
        """A hold; unless ``late`` none that the model does not cover: one whose expiry debited."""
        known = self.holds[ids["account_id"]]
        estimates, now_us = pb.EXPIRY_POLICY_DEBIT_ESTIMATE, self.clock.now_us
        covered = [
            hold
            for hold in known
            if late or hold.expiry_policy != estimates or hold.expire_time.ToMicroseconds() > now_us
        ]
        return self.dice.choice(covered[-4:]).hold_id


async def _call(service: CreditService, method: str, request: Message) -> tuple[str, Any]:
    try:
        answer = await getattr(service.direct, method)(request)
    except RequestIdReusedError:
        return "REQUEST_ID_REUSED", {}
    except ServiceError as error:
        return error.reason_name(), dict(error.metadata)
    answer.version = ""
    return "OK", answer


def _expected(model: Model, method: str, request: Message, now_us: int) -> tuple[str, Any]:
    try:
        return "OK", model.apply(method, request, now_us)
    except Refused as refused:
        return refused.reason, refused.metadata


async def test_every_answer_and_entry_is_what_the_model_says(home: Home, seed: int) -> None:
    clock = Clock()
    store = await home.open()
    service, model, caller = CreditService(store, clock), Model(_tariff()), Caller(seed, clock)
    for number in range(CALLS):
        clock.advance(caller.dice.choice([0, 0, 0.001, 0.4, 3]))
        method, request = caller.request(number)
        found = await _call(service, method, request)
        expected = _expected(model, method, request, clock.now_us)
        assert found == expected, f"call {number}, {method}: {request}"
        if method == "Reserve" and found[0] == "OK":
            caller.holds[request.account_id].append(found[1].hold)
        account = Account(service.direct, request.account_id)
        balance = (await account.balance()).balance
        assert balance == model.balance(account.account_id, "credit", clock.now_us), number
        newest = await account.entries(newest_first=True)
        ledger = model.entries(account.account_id, clock.now_us)
        assert newest[:20] == ledger[:-21:-1], f"after call {number}, {method}: {request}"
    for account_id in ACCOUNTS:
        found_usage = await Account(service.direct, account_id).usage()
        assert found_usage == model.usage(account_id)
        await audit_account(service.direct, account_id)
    await store.close()
