"""What an edge has of a lease: the bound that keeps accounts from being overspent."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.credits.records import CacheResult, Metered
from services.credits.tariff import FreePeriod, cost
from services.credits.tariff import Rates as LedgerRates
from services.edge.credit.lease_books import Lease, LeasePayment
from services.edge.credit.lease_journal import LeaseJournal, LeaseTerms, Settlement, Slot, Spent
from services.edge.credit.tariff import Rates

HIT, MISS = 1, 2
TERMS = LeaseTerms("key", "account", "edge:test:1", "download", "credit", 1000, 10, 60_000, 1)
RATE = st.fractions(min_value=0, max_value=100, max_denominator=10**6)


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    return new_slot(tmp_path)


def new_slot(directory: Path) -> Slot:
    slot = LeaseJournal(directory / "journal", 4).take()
    assert slot is not None
    slot.ask(TERMS)
    slot.open("hold-1")
    return slot


def lease_on(
    slot: Slot,
    remaining: int,
    *,
    hit: Fraction = Fraction(1, 1024),
    miss: Fraction = Fraction(2, 1024),
    minimum: int = 0,
    unlimited: bool = False,
) -> Lease:
    woken = SimpleNamespace(count=0)

    def wake() -> None:
        woken.count += 1

    rates = Rates("credit", hit.as_integer_ratio(), miss.as_integer_ratio(), minimum, 0, False)
    lease = Lease(slot, rates, wake, transfer_s=600.0, s_per_byte=1e-4, unlimited=unlimited)
    lease.begin(remaining, balance=0)
    lease.spend_until = lease.cut_at = math.inf
    return lease


def taken(lease: Lease, quantity: int, result: int = HIT, *, guest: bool = False) -> LeasePayment:
    payment = lease.take(quantity, result, guest=guest)
    assert payment is not None
    return payment


def test_a_delivery_takes_its_price_and_gives_back_what_was_not_sent(slot: Slot) -> None:
    lease = lease_on(slot, 100)
    payment = taken(lease, 40 * 1024)
    assert (payment.amount, payment.currency, payment.available) == (40, "credit", 60)
    assert lease.take(61 * 1024, HIT, guest=False) is None
    payment.deliver(10 * 1024)
    payment.settle()
    assert lease.left == 90
    payment.settle()
    payment.deliver(40 * 1024)
    assert (lease.left, lease.in_flight, lease.in_flight_amount) == (90, 0, 0)


def test_what_did_not_arrive_after_all_is_not_paid(slot: Slot) -> None:
    lease = lease_on(slot, 100)
    part, none, silent = (taken(lease, 10 * 1024, guest=guest) for guest in (False, False, True))
    for payment, total in ((part, 3 * 1024), (none, 0), (silent, 0)):
        payment.deliver(9 * 1024)
        payment.deliver(total)
    assert slot.delivered(with_unreported=False)[HIT] == Spent(3 * 1024, 1)
    assert slot.delivered(with_unreported=True)[HIT] == Spent(13 * 1024, 2)
    for payment in (part, none, silent):
        payment.settle()
    assert lease.left == 97
    assert slot.delivered(with_unreported=True)[HIT] == Spent(3 * 1024, 1)


def test_small_deliveries_are_rounded_together(slot: Slot) -> None:
    lease = lease_on(slot, 100)
    for _ in range(1024):
        payment = taken(lease, 1)
        payment.deliver(1)
        payment.settle()
    assert lease.left == 99


def test_a_payment_grows_as_far_as_the_lease_goes(slot: Slot) -> None:
    lease = lease_on(slot, 10)
    payment = taken(lease, 0, MISS)
    ends_at = payment.ends_at
    assert payment.extend(4 * 1024)
    assert (payment.amount, lease.left) == (8, 2)
    assert payment.ends_at > ends_at
    assert not payment.extend(2 * 1024)
    assert payment.extend(1024)
    payment.deliver(5 * 1024)
    payment.settle()
    assert (lease.left, payment.extend(0)) == (0, False)


def test_a_lease_is_spent_no_longer_than_it_lives(slot: Slot) -> None:
    lease = lease_on(slot, 100)
    payment = taken(lease, 1024)
    lease.spend_until = 0.0
    lease.cut_at = 5.0
    assert lease.take(1024, HIT, guest=False) is None
    assert payment.ends_at == 5.0
    assert not payment.extend(1)


def test_in_shadow_mode_nothing_is_refused(slot: Slot) -> None:
    lease = lease_on(slot, 0, unlimited=True)
    woken = []
    lease.wake = lambda: woken.append(lease.left)
    payment = taken(lease, 10**9)
    assert payment.extend(10**9)
    payment.deliver(2 * 10**9)
    payment.settle()
    assert lease.available == 0
    assert not woken, "it is settled from time to time, not with each delivery"


def test_a_settlement_is_the_same_whoever_repeats_it(tmp_path: Path) -> None:
    slot = new_slot(tmp_path)
    lease = lease_on(slot, 1000)
    first, second, third = (taken(lease, 1024, result) for result in (HIT, MISS, HIT))
    first.deliver(1000)
    first.settle()
    second.deliver(500)
    frozen = lease.freeze(50, 60_000, final=False)
    assert frozen.lines == (Spent(), Spent(1000, 1), Spent())
    assert frozen.target_amount == 50 + 3, "what is under way keeps what it needs"
    third.deliver(7)
    second.deliver(600)
    second.settle()
    # The process dies here.
    [left] = LeaseJournal(tmp_path / "journal", 4).left()
    assert left.terms == TERMS
    assert (left.hold_id, left.is_open) == ("hold-1", True)
    assert left.unanswered == frozen
    left.answer(1)
    last = left.freeze(left.delivered(with_unreported=True), 0, 0, final=True)
    assert last == Settlement(2, (Spent(), Spent(7, 1), Spent(600, 1)), 0, 0, final=True)
    left.free()
    assert LeaseJournal(tmp_path / "journal", 2).left() == []


def test_what_guests_did_not_report_is_told_apart(tmp_path: Path) -> None:
    lease = lease_on(new_slot(tmp_path), 1000)
    own, ended, begun, silent = (taken(lease, 1000, guest=guest) for guest in (False, *[True] * 3))
    own.deliver(300)
    ended.deliver(50)
    ended.settle()
    begun.deliver(10)
    unused = taken(lease, 5000, guest=True)
    unused.settle()
    assert silent.extend(200)
    [left] = LeaseJournal(tmp_path / "journal", 4).left()
    assert left.delivered(with_unreported=False)[HIT] == Spent(300 + 50 + 10, 3)
    # What this process sends itself is never more than it sent.
    assert left.delivered(with_unreported=True)[HIT] == Spent(300 + 50 + 1000 + 1200, 4)


def test_the_journal_has_room_for_so_many(tmp_path: Path) -> None:
    journal = LeaseJournal(tmp_path / "journal", 2)
    first, second = journal.take(), journal.take()
    assert first is not None
    assert second is not None
    assert journal.take() is None
    journal.give_back(first)
    assert journal.take() is first


class _Ledger:
    """A lease as the credit service has it, with its prices."""

    def __init__(self, rates: LedgerRates, remaining: int) -> None:
        self.rates, self.remaining, self.free = rates, remaining, rates.free

    def settle(self, settlement: Settlement) -> int:
        """Does it; what is left. The bound is that there is always enough."""
        for result, spent in enumerate(settlement.lines):
            if spent.quantity:
                free = min(self.free, spent.quantity)
                self.free -= free
                metered = Metered("download", spent.quantity, CacheResult(result))
                self.remaining -= cost(self.rates, metered, free, spent.deliveries)
        assert self.remaining >= 0
        return self.remaining


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "deliver", "settle", "settle", "freeze", "answer"]),
        st.integers(0, 5000),
        st.integers(0, 2),
    ),
    max_size=60,
)


@pytest.fixture(scope="module")
def slots(tmp_path_factory: pytest.TempPathFactory) -> Slot:
    return new_slot(tmp_path_factory.mktemp("books"))


@given(STEPS, RATE, RATE, st.integers(0, 50), st.integers(0, 3000), st.integers(0, 20_000))
def test_whatever_is_settled_together_the_lease_pays_for_it(
    slots: Slot,
    steps: list[Step],
    hit: Fraction,
    miss: Fraction,
    minimum: int,
    free: int,
    remaining: int,
) -> None:
    slots.ask(TERMS)
    lease = lease_on(slots, remaining, hit=hit, miss=miss, minimum=minimum)
    ledger = _Ledger(LedgerRates("credit", hit, miss, free, FreePeriod.DAY, minimum), remaining)
    open_payments: list[tuple[LeasePayment, int]] = []
    pending: Settlement | None = None
    sent = 0
    for step, number, result in steps:
        if step == "take":
            payment = lease.take(number, result, guest=bool(number % 2))
            if payment is not None:
                open_payments.append((payment, number))
        elif step in {"deliver", "settle"} and open_payments:
            payment, quantity = open_payments[number % len(open_payments)]
            payment.deliver(min(quantity, number))
            if step == "settle":
                open_payments.remove((payment, quantity))
                payment.settle()
                sent += payment._delivered
        elif step == "freeze" and pending is None:
            pending = lease.freeze(0, 0, final=False)
            ledger.settle(pending)
        elif step == "answer" and pending is not None:
            lease.answered(pending, ledger.remaining, 0)
            pending = None
        assert lease.left >= 0
    for payment, quantity in open_payments:
        payment.deliver(quantity)
        payment.settle()
        sent += quantity
    if pending is not None:
        lease.answered(pending, ledger.remaining, 0)
    last = lease.freeze(0, 0, final=True)
    lease.answered(last, ledger.settle(last), 0)
    assert lease.in_flight_amount == 0
    assert lease.left == ledger.remaining
    delivered = slots.delivered(with_unreported=True)
    assert sum(spent.quantity for spent in delivered) == sent
