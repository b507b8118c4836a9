"""Every call in any order, with a clock that jumps: what is stored agrees with itself all the time.

The audit at the end looks at the ledger from outside; here are the records that no call shows.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.account import load_wallet
from services.credits.lots import Shelf, place
from services.credits.records import HOLD_EXPIRIES, HOLDS, REFILLS, HoldState, decode_hold
from services.rpc.errors import ServiceError
from services.store.port import ReadTransaction
from tests.support.credit_service import DAY_S, Account, Clock, CreditService, live, metered
from tests.support.ledger_audit import audit_account
from tests.support.seeds import chosen_seed

STEPS = 250


class Course:
    """Random calls about one account."""

    def __init__(self, seed: int, account: Account, clock: Clock) -> None:
        self.dice = random.Random(seed)
        self.account = account
        self.clock = clock
        self.grants: list[str] = []
        self.holds: list[pb.Hold] = []
        self.leases: list[pb.Hold] = []
        self.done: Counter[str] = Counter()

    async def step(self) -> None:
        steps: list[Callable[[], Awaitable[object]]] = [
            self.grant,
            self.recur,
            self.debit,
            self.reserve,
            self.capture,
            self.extend,
            self.release,
            self.void,
            self.refund,
            self.open_lease,
            self.settle,
            self.terms,
        ]
        step = self.dice.choice(steps)
        with contextlib.suppress(ServiceError, IndexError):
            await step()
            self.done[step.__name__] += 1
        if self.dice.random() < 0.15:
            self.clock.advance(self.dice.choice([0.5, 5, 30, DAY_S, -DAY_S, -10, 3 * DAY_S]))

    def price(self) -> dict[str, Any]:
        meter = self.dice.choice(["download", "upload", "free", "scan", "probe"])
        result = self.dice.choice(["HIT", "MISS", "UNSPECIFIED"])
        quantity = metered(meter, self.dice.randrange(20_000), result)
        return self.dice.choice([{"amount": self.dice.randrange(60)}, {"metered": quantity}])

    async def grant(self) -> None:
        expires = {"expire_time": self.clock.after(self.dice.choice([1, 10, 100, DAY_S]))}
        fields = self.dice.choice([expires, {}])
        made = await self.account.grant(
            self.dice.randrange(1, 200), priority=self.dice.randrange(3), **fields
        )
        self.grants.append(made.grant_id)

    async def recur(self) -> None:
        recurrence = pb.Recurrence(
            period=self.dice.choice([pb.REFILL_PERIOD_DAY, pb.REFILL_PERIOD_WEEK]),
            max_rollover=self.dice.choice([0, 10, 10**6]),
        )
        if self.dice.random() < 0.3:
            recurrence.end_time.CopyFrom(self.clock.after(2 * DAY_S))
        made = await self.account.grant(self.dice.randrange(1, 50), recurrence=recurrence)
        self.grants.append(made.grant_id)

    async def debit(self) -> None:
        await self.account.debit(**self.price())

    async def reserve(self) -> None:
        answer = await self.account.reserve(
            seconds=self.dice.choice([1, 20, DAY_S]),
            expiry_policy=self.dice.choice([1, 2]),
            excess_rule=self.dice.choice([1, 2, 3]),
            **self.price(),
        )
        self.holds.append(answer.hold)

    async def capture(self) -> None:
        hold, final = self.dice.choice(self.holds[-4:]), self.dice.random() < 0.4
        await self.account.capture(hold, final=final, **self.price())

    async def extend(self) -> None:
        seconds, more, price = self.dice.choice([1, DAY_S]), self.dice.random() < 0.5, self.price()
        await self.account.extend_hold(
            self.dice.choice(self.holds[-4:]), seconds=seconds, **(price if more else {})
        )

    async def release(self) -> None:
        await self.account.release(self.dice.choice(self.holds[-4:]))

    async def void(self) -> None:
        if self.dice.random() < 0.4:
            await self.account.void(self.dice.choice(self.grants))

    async def refund(self) -> None:
        kinds = {pb.ENTRY_KIND_DEBIT, pb.ENTRY_KIND_CAPTURE}
        entries = [entry for entry in await self.account.entries() if entry.kind in kinds]
        amount = self.dice.choice([0, self.dice.randrange(1, 40)])
        await self.account.refund(self.dice.choice(entries[-30:]).entry_id, amount)

    async def open_lease(self) -> None:
        answer = await self.account.open_lease(
            self.dice.randrange(1, 150),
            min_amount=1,
            seconds=self.dice.choice([1, 20, DAY_S]),
            expiry_policy=self.dice.choice([1, 2]),
            excess_rule=self.dice.choice([1, 2, 3]),
        )
        self.leases.append(answer.hold)

    async def settle(self) -> None:
        prices = [self.price() for _ in range(self.dice.randrange(4))]
        fields: dict[str, Any] = self.dice.choice([{}, {"time_to_live": live(30)}])
        await self.account.settle(
            self.dice.choice(self.leases[-4:]),
            *(spending for price in prices for spending in price.values()),
            target_amount=self.dice.choice([0, 100]),
            final=self.dice.random() < 0.2,
            **fields,
        )

    async def terms(self) -> None:
        if self.dice.random() < 0.3:
            limit, shadow = self.dice.choice([0, 50, 500]), self.dice.random() < 0.3
            changes: list[dict[str, Any]] = [{"overdraft_limit": limit}, {"shadow": shadow}]
            await self.account.set_terms(**self.dice.choice(changes))


def _check(tx: ReadTransaction, account_id: str) -> None:
    """The records of an account against each other."""
    wallet = load_wallet(tx, account_id)
    held: Counter[str] = Counter()
    opened = 0
    for key, value in tx.range(*HOLDS.range(account_id)):
        hold = decode_hold(key, value)
        assert sum(lot.remaining for lot in hold.lots) == hold.remaining
        held[hold.currency] += hold.remaining
        opened += hold.state == HoldState.OPEN
    assert opened == wallet.open_holds == len(tx.range(*HOLD_EXPIRIES.range(account_id)))
    for currency, purse in wallet.purses.items():
        tail = Shelf(account_id, currency).lots(tx)
        unspent = [*purse.head, *tail]
        assert len(tail) == purse.tail
        assert purse.available == sum(lot.remaining for lot in unspent) - purse.debt
        assert not (purse.debt and unspent), "lots next to a debt"
        assert all(lot.remaining > 0 for lot in unspent)
        places = [place(lot) for lot in unspent]
        assert places == sorted(set(places))
        assert purse.held == held[currency]
        assert min(purse.debt, purse.spent, purse.expired, purse.voided) >= 0
    refills = [REFILLS.parts(key)[1] for key, _ in tx.range(*REFILLS.range(account_id))]
    assert not refills or wallet.refills_us <= min(int(due) for due in refills)


@pytest.mark.parametrize("attempt", range(3))
async def test_the_records_agree_after_each_of_any_calls(
    memory: CreditService, bob: Account, clock: Clock, attempt: int
) -> None:
    seed = chosen_seed() if attempt else 0
    course = Course(seed, bob, clock)
    for _ in range(STEPS):
        await course.step()
        await memory.store.read(lambda tx: _check(tx, "bob"))
    if attempt == 0:  # always the same course
        assert len(course.done) == 12, "a call that never succeeded"
    await bob.set_terms(shadow=False)
    await audit_account(bob.stub, "bob")
