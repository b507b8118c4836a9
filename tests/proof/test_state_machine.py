"""The whole credit API as a state machine, called at random and held against the model."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import leases_pb2, ledger_pb2

from tests.support import credit_domains as of
from tests.support.credit_machine import CreditMachine, any_of, one_of
from tests.support.credit_model.books import DAY_US
from tests.support.credit_service import live
from tests.support.store_homes import ENGINES

Prices = dict[str, Any]
"""The fields of a price."""


class WholeCreditApi(CreditMachine):
    """A rule for each operation, and for what happens to the service."""

    @initialize(start=st.sampled_from(of.STARTS), ann=of.funds, ben=of.funds, stamps=of.funds)
    def begin(self, start: int, ann: int, ben: int, stamps: int) -> None:
        self.clock.now_us = start * 1_000_000
        for who, currency, amount in (("ann", "", ann), ("ben", "", ben), ("ann", "stamp", stamps)):
            if amount:
                request = pb.GrantRequest(**self.ids(who), currency=currency, amount=amount)
                self.call("Grant", request)

    @rule(event=of.events)
    def something_happens(self, event: float | str) -> None:
        """The clock moves, the service starts anew, or it sweeps."""
        if isinstance(event, str):
            self.run(self.restart() if event == "restart" else self.settle())
        else:
            self.clock.advance(event)

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
    @rule(wrong=of.mistakes, back=st.integers(0, 30), other=st.integers(0, 30))
    def make_a_mistake(self, wrong: of.Mistake, back: int, other: int) -> None:
        """A rule of the contract is broken, an id used again, or a lease taken for a hold, say."""
        method, old = self.sent[-1 - back % len(self.sent)]
        if wrong.request is not None:
            names = [*self.holds("ann"), *self.leases("ann"), *self.grants("ann"), "nothing"]
            about = {wrong.field: names[-1 - other % len(names)]}
            request = type(wrong.request)(**self.ids("ann"), **about)
            request.MergeFrom(wrong.request)
            self.call(wrong.method, request)
            return
        request = type(old)()
        request.CopyFrom(old)
        changed = request.debits[0] if hasattr(request, "debits") else request
        if wrong.field:
            setattr(changed, wrong.field, wrong.value)
            reason, _ = self.run(self.calls.outcome(method, request))
            assert reason == "INVALID_ARGUMENT", request
        else:
            earlier = self.sent[-1 - other % len(self.sent)][1]
            changed.request_id = getattr(earlier, "request_id", "r1")
            self.call(method, request)


def _run(engine: str, seed: int, chosen: settings) -> None:
    machine = type("Machine", (WholeCreditApi,), {"engine": engine, "store_seed": seed})
    run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=chosen)


@pytest.mark.timeout(900)  # a failure is made small before it is shown
@pytest.mark.parametrize("engine", ENGINES)
def test_every_answer_is_what_the_model_says(engine: str, seed: int) -> None:
    _run(engine, seed, settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "proof")))


FAULTS = [
    ("services.store.requests.RequestRecords.remember", lambda *_, **__: None),
    ("services.credits.holds.return_rest", lambda *_: 0),
    ("services.credits.grants.boundary_us", lambda anchor, _, count: anchor + count * 30 * DAY_US),
]


@pytest.mark.parametrize(("name", "fault"), FAULTS, ids=["requests", "releases", "periods"])
def test_a_service_with_a_fault_is_found_out(
    name: str, fault: Callable[..., Any], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name, fault)
    until_found = settings(
        settings.get_profile("proof"),
        max_examples=1000,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError, match="the model says"):
        _run("simulated", seed, until_found)
