"""The ledger on every engine: the same calls make the same books."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import InsufficientCreditError
from services.store.port import Store
from tests.support.credit_service import DAY_S, Account, Clock, CreditService, metered
from tests.support.ledger_audit import audit_account
from tests.support.store_homes import Home

GRANTED = 1000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(store: Store, clock: Clock) -> CreditService:
    return CreditService(store, clock)


async def test_the_same_calls_make_the_same_books(service: CreditService, clock: Clock) -> None:
    alice = Account(service.direct)
    await alice.grant(50, expire_time=clock.after(500))
    await alice.grant(100)
    await alice.debit(metered=metered("download", 10_000, "MISS"))
    first = (await alice.reserve(70, seconds=100)).hold
    second = (
        await alice.reserve(
            metered=metered("upload", 5_000),
            seconds=200,
            expiry_policy=pb.EXPIRY_POLICY_DEBIT_ESTIMATE,
        )
    ).hold
    await alice.capture(first, 15)
    await alice.capture(second, metered=metered("upload", 1_000))
    clock.advance(150)
    await service.sweeper.sweep()
    third = (await alice.reserve(30, seconds=2 * DAY_S)).hold
    clock.advance(DAY_S)
    await service.sweeper.sweep()
    await alice.release(third)
    audit = await audit_account(alice.stub, "alice")
    kinds = [(pb.EntryKind.Name(entry.kind)[11:], entry.amount) for entry in audit.entries]
    assert kinds == [
        ("GRANT", 50),
        ("GRANT", 100),
        ("DEBIT", 20),
        ("RESERVE", 70),
        ("RESERVE", 20),
        ("CAPTURE", 15),
        ("CAPTURE", 4),
        ("RELEASE", 55),
        ("RESERVE", 30),
        ("CAPTURE", 16),
        ("RELEASE", 30),
        ("EXPIRE_GRANT", 15),
    ]
    balance = audit.balance
    assert (balance.available, balance.spent, balance.expired) == (80, 55, 15)


async def test_clients_that_compete_for_one_account_never_overspend_it(
    home: Home, clock: Clock, seed: int
) -> None:
    stores = await home.open_all(3)
    stubs = [CreditService(store, clock).direct for store in stores]
    await Account(stubs[0]).grant(GRANTED)
    dice = random.Random(seed)

    async def spend(account: Account, amounts: list[int]) -> int:
        spent = 0
        for amount in amounts:
            with contextlib.suppress(InsufficientCreditError):
                spent += (await account.debit(amount)).amount
        return spent

    spent = await asyncio.gather(
        *(
            spend(Account(dice.choice(stubs)), [dice.randrange(1, 20) for _ in range(12)])
            for _ in range(24)
        )
    )
    audit = await audit_account(stubs[0], "alice")
    assert audit.balance.spent == sum(spent)
    assert audit.balance.available < 20
    for store in stores:
        await store.close()


async def test_one_hold_is_captured_once_whoever_asks(home: Home, clock: Clock) -> None:
    stores = await home.open_all(3)
    accounts = [Account(CreditService(store, clock).direct) for store in stores]
    await accounts[0].grant(GRANTED)
    hold = (await accounts[0].reserve(10)).hold
    ends = await asyncio.gather(
        *(account.capture(hold, 1, final=True) for account in accounts * 5),
        *(account.release(hold) for account in accounts * 5),
        return_exceptions=True,
    )
    assert sum(not isinstance(end, BaseException) for end in ends) == 1
    await audit_account(accounts[0].stub, "alice")
    for store in stores:
        await store.close()
