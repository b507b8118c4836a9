"""The whole credit API as a state machine, called at random and held against the model."""

from __future__ import annotations

import os
from typing import Any

import hypothesis
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import leases_pb2, ledger_pb2

from tests.support import credit_domains as of
from tests.support.credit_machine import CreditMachine, any_of, one_of
from tests.support.credit_service import live
from tests.support.store_homes import ENGINES

Prices = dict[str, Any]
"""The fields of a price."""


class WholeCreditApi(CreditMachine):
    """A rule for each operation, and for what happens to the service."""

    @initialize(start=st.sampled_from(of.STARTS), funds=st.lists(of.funds, max_size=4))
    def begin(self, start: int, funds: list[tuple[str, str, int]]) -> None:
        self.clock.now_us = start * 1_000_000
        for who, currency, amount in funds:
            request = pb.GrantRequest(**self.ids(who), currency=currency, amount=amount)
            self.call("Grant", request)

    @rule(seconds=of.jumps)
    def move_the_clock(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def restart_the_service(self) -> None:
        self.run(self.restart())

    @rule()
    def sweep(self) -> None:
        self.run(self.settle())

    @rule(
        who=of.accounts,
        currency=of.currencies,
        amount=of.grant_amounts,
        priority=st.integers(-1, 1),
        expiry=of.expiries,
        shift=of.shifts,
    )
    def grant(
        self, who: str, currency: str, amount: int, priority: int, expiry: int | None, shift: float
    ) -> None:
        request = pb.GrantRequest(
            **self.ids(who),
            currency=currency,
            amount=amount,
            priority=priority,
            expire_time=None if expiry is None else self.clock.after(expiry),
        )
        self.call("Grant", request, shift)

    @rule(
        who=of.accounts,
        amount=of.amounts,
        recurrence=of.recurrences,
        end=st.sampled_from([None, 1, 40 * 86_400]),
        shift=of.shifts,
    )
    def grant_each_period(
        self, who: str, amount: int, recurrence: pb.Recurrence, end: int | None, shift: float
    ) -> None:
        if end is not None:
            recurrence.end_time.CopyFrom(self.clock.after(end))
        request = pb.GrantRequest(**self.ids(who), amount=amount + 1, recurrence=recurrence)
        self.call("Grant", request, shift)

    @precondition(lambda self: any_of(self.grants))
    @rule(who=of.accounts, back=of.backwards, shift=of.shifts)
    def void(self, who: str, back: int, shift: float) -> None:
        grant_id = one_of(self.grants, who, back)
        self.call("VoidGrant", pb.VoidGrantRequest(**self.ids(who), grant_id=grant_id), shift)

    @rule(who=of.accounts, price=of.prices, currency=of.currencies, shift=of.shifts)
    def debit(self, who: str, price: Prices, currency: str, shift: float) -> None:
        self.call("Debit", self.debit_request(who, price, currency), shift)

    @rule(
        debits=st.lists(st.tuples(of.accounts, of.prices), min_size=1, max_size=4),
        how=st.sampled_from(["StreamDebits", "BatchDebit", "together"]),
        twice=of.seldom,
        shift=of.shifts,
    )
    def debit_many(
        self, debits: list[tuple[str, Prices]], how: str, *, twice: bool, shift: float
    ) -> None:
        requests = [self.debit_request(who, price) for who, price in debits]
        if twice:
            requests.append(requests[0])
        if how == "StreamDebits":
            self.call(how, pb.StreamDebitsRequest(debits=requests), shift)
        else:
            together = how == "together"
            request = pb.BatchDebitRequest(debits=requests, all_or_nothing=together)
            self.call("BatchDebit", request, shift)

    def debit_request(self, who: str, price: Prices, currency: str = "") -> pb.DebitRequest:
        return pb.DebitRequest(**self.ids(who), **price, currency=currency, resource="file")

    @precondition(lambda self: any_of(self.entries))
    @rule(who=of.accounts, back=of.backwards, amount=of.refunds, shift=of.shifts)
    def refund(self, who: str, back: int, amount: int, shift: float) -> None:
        entry_id = one_of(self.entries, who, back)
        request = pb.RefundRequest(**self.ids(who), entry_id=entry_id, amount=amount)
        self.call("Refund", request, shift)

    @rule(who=of.accounts, price=of.prices, terms=of.hold_terms, shift=of.shifts)
    def reserve(self, who: str, price: Prices, terms: dict[str, Any], shift: float) -> None:
        request = pb.ReserveRequest(**self.ids(who), **price, **terms, resource="kept")
        self.call("Reserve", request, shift)

    @precondition(lambda self: any_of(self.holds))
    @rule(
        who=of.accounts,
        back=of.backwards,
        price=of.prices,
        final=st.booleans(),
        shift=of.shifts,
    )
    def capture(self, who: str, back: int, price: Prices, *, final: bool, shift: float) -> None:
        hold_id = one_of(self.holds, who, back)
        request = pb.CaptureRequest(**self.ids(who), **price, hold_id=hold_id, final=final)
        self.call("Capture", request, shift)

    @precondition(lambda self: any_of(self.holds))
    @rule(
        who=of.accounts,
        back=of.backwards,
        price=st.one_of(st.just({}), of.prices),
        lives=of.lifetimes,
        shift=of.shifts,
    )
    def extend(self, who: str, back: int, price: Prices, lives: float, shift: float) -> None:
        hold_id = one_of(self.holds, who, back)
        request = pb.ExtendHoldRequest(
            **self.ids(who), **price, hold_id=hold_id, time_to_live=live(lives)
        )
        self.call("ExtendHold", request, shift)

    @precondition(lambda self: any_of(self.holds))
    @rule(who=of.accounts, back=of.backwards, shift=of.shifts)
    def release(self, who: str, back: int, shift: float) -> None:
        hold_id = one_of(self.holds, who, back)
        self.call("Release", pb.ReleaseRequest(**self.ids(who), hold_id=hold_id), shift)

    @rule(
        who=of.accounts,
        currency=of.currencies,
        amount=of.amounts,
        least=st.sampled_from([0, 1, 30]),
        owner=of.owners,
        terms=of.hold_terms,
        shift=of.shifts,
    )
    def open_lease(
        self,
        who: str,
        currency: str,
        amount: int,
        least: int,
        owner: str,
        terms: dict[str, Any],
        shift: float,
    ) -> None:
        request = leases_pb2.OpenLeaseRequest(
            **self.ids(who),
            **terms,
            currency=currency,
            amount=amount + 1,
            min_amount=least,
            owner=owner,
        )
        self.call("OpenLease", request, shift)

    @precondition(lambda self: any_of(self.leases))
    @rule(
        who=of.accounts,
        back=of.backwards,
        owner=of.owners,
        spendings=st.lists(of.spendings, max_size=3),
        filled=st.sampled_from([0, 20, 100]),
        lives=st.one_of(st.none(), of.lifetimes),
        final=of.seldom,
        shift=of.shifts,
    )
    def settle_lease(
        self,
        who: str,
        back: int,
        owner: str,
        spendings: list[leases_pb2.LeaseSpending],
        filled: int,
        lives: float | None,
        *,
        final: bool,
        shift: float,
    ) -> None:
        request = leases_pb2.SettleLeaseRequest(
            **self.ids(who),
            hold_id=one_of(self.leases, who, back),
            owner=owner,
            spendings=spendings,
            target_amount=filled,
            time_to_live=None if lives is None else live(lives),
            final=final,
        )
        self.call("SettleLease", request, shift)

    @rule(
        who=of.accounts,
        currency=of.currencies,
        limit=st.sampled_from([None, 0, 50, 2**53]),
        shadow=st.sampled_from([None, False, True, False]),
        shift=of.shifts,
    )
    def set_terms(
        self, who: str, currency: str, limit: int | None, shift: float, *, shadow: bool | None
    ) -> None:
        request = ledger_pb2.SetAccountTermsRequest(
            **self.ids(who), currency=currency, overdraft_limit=limit, shadow=shadow
        )
        self.call("SetAccountTerms", request, shift)

    def leases(self, account_id: str) -> list[str]:
        return self.holds(account_id, leased=True)

    @precondition(lambda self: self.sent)
    @rule(back=st.integers(0, 30), shift=of.shifts)
    def repeat(self, back: int, shift: float) -> None:
        method, request = self.sent[-1 - back % len(self.sent)]
        self.call(method, request, shift)

    @precondition(lambda self: self.sent)
    @rule(asked=st.sampled_from(of.WRONG), back=st.integers(0, 30), other=st.integers(0, 30))
    def ask_for_the_wrong_thing(self, asked: of.Wrong | None, back: int, other: int) -> None:
        """A lease as a hold, a hold as a lease, another account's; or with a used request id."""
        _, earlier = self.sent[-1 - back % len(self.sent)]
        if asked is not None:
            method, old, field = asked
            names = [*self.holds("ann"), *self.leases("ann"), *self.grants("ann"), "nothing"]
            wrong = type(old)(**self.ids("ann"), **{field: names[-1 - other % len(names)]})
            wrong.MergeFrom(old)
            self.call(method, wrong)
            return
        method, old = self.sent[-1 - other % len(self.sent)]
        if not hasattr(old, "debits") and not hasattr(earlier, "debits"):
            again = type(old)()
            again.CopyFrom(old)
            again.request_id = earlier.request_id
            self.call(method, again)

    @precondition(lambda self: self.sent)
    @rule(back=st.integers(0, 30), broken=of.broken)
    def break_a_rule(self, back: int, broken: tuple[str, str]) -> None:
        """Nothing happens, and nothing is remembered."""
        method, old = self.sent[-1 - back % len(self.sent)]
        request = type(old)()
        request.CopyFrom(old)
        setattr(request.debits[0] if hasattr(request, "debits") else request, *broken)
        reason, _ = self.run(self.calls.outcome(method, request))
        assert reason == "INVALID_ARGUMENT", request


@pytest.mark.timeout(900)  # a failure is made small before it is shown
@pytest.mark.parametrize("engine", ENGINES)
def test_every_answer_is_what_the_model_says(engine: str, seed: int) -> None:
    machine = type("Machine", (WholeCreditApi,), {"engine": engine, "store_seed": seed})
    chosen = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "proof"))
    run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=chosen)
