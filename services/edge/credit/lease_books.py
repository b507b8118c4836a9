"""What an edge has of a lease, and what it has spent of it: whole numbers, no I/O, no waiting.

The bound that keeps the account from being overspent: what the credit service may take for all that
was not settled yet is at most what the lease had when it answered last. Of deliveries that have
ended, the price of their sum counts, for they are settled in one line (those under settlement apart
from those after); of each that has not ended, its own price, for nobody knows with which others it
will be settled. A sum never costs more than its parts, so whatever is settled together, the bound
holds. What is free of charge is not counted here: the credit service takes less then.

A delivery is settled when it has ended, whole; so it is one of the line's deliveries, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from services.edge.credit.lease_journal import (
    ADMITTED,
    BEGUN,
    GUEST,
    OWN,
    RESULTS,
    WAITING,
    Settlement,
    Slot,
    Spent,
)
from services.edge.credit.tariff import Rates

_now = time.monotonic
_MAX_AMOUNT = 2**63 - 1


class Book:
    """The deliveries of one price class: a meter and a cache result."""

    __slots__ = (
        "admitted",
        "begun",
        "bound",
        "count",
        "denominator",
        "frozen_count",
        "frozen_quantity",
        "guest",
        "minimum",
        "numerator",
        "own",
        "quantity",
        "waiting",
        "words",
        "words_at",
    )

    def __init__(self, rates: Rates, result: int, slot: Slot) -> None:
        self.numerator, self.denominator = rates.rate(result)
        self.minimum = rates.minimum
        self.words, self.words_at = slot.words, slot.totals_at(result)
        # As in the journal.
        self.own = self.begun = self.guest = self.admitted = self.waiting = 0
        # Of deliveries that have ended, and as much of it as was frozen.
        self.quantity = self.count = self.frozen_quantity = self.frozen_count = 0
        self.bound = 0
        """What those that have ended and were not frozen cost."""

    def price(self, quantity: int, count: int = 1) -> int:
        """What deliveries cost that are settled in one line."""
        amount = -(-quantity * self.numerator // self.denominator)
        least = self.minimum * count
        return max(least, amount)

    def end(self, quantity: int) -> int:
        """A delivery has ended; how much more what is to be settled costs by it."""
        self.quantity += quantity
        self.count += 1
        before = self.bound
        self.bound = bound = self.price(
            self.quantity - self.frozen_quantity, self.count - self.frozen_count
        )
        return bound - before

    def freeze(self) -> Spent:
        """What has ended by now belongs to a settlement; the totals."""
        self.frozen_quantity, self.frozen_count = self.quantity, self.count
        self.bound = 0
        return Spent(self.quantity, self.count)


class Lease:
    """Credit of one account for one meter, as this edge has it.

    Args:
        slot: its place in the journal.
        rates: the meter's, for as long as the lease lives.
        wake: called when the lease should be settled, filled up or closed.
        transfer_s: how long a delivery may take at least.
        s_per_byte: how much longer it may take by its size.
        unlimited: in shadow mode nothing is refused.
    """

    def __init__(
        self,
        slot: Slot,
        rates: Rates,
        wake: Callable[[], None],
        *,
        transfer_s: float,
        s_per_byte: float,
        unlimited: bool = False,
    ) -> None:
        self.slot = slot
        self.currency = rates.currency
        self.books = tuple(Book(rates, result, slot) for result in range(RESULTS))
        self.wake = wake
        self.transfer_s = transfer_s
        self.s_per_byte = s_per_byte
        self.unlimited = unlimited
        self.left = 0
        """What can be spent still."""
        self.low = 0
        """Below this, it should be filled up at once, unless it is unlimited."""
        self.balance = 0
        """What the account could spend besides, as of the last answer."""
        self.in_flight = 0
        """Deliveries that have not ended."""
        self.in_flight_amount = 0
        self.spend_until = self.cut_at = 0.0
        """When no more deliveries begin; when all must have ended. On the monotonic clock."""
        self.used_at = 0.0
        self.is_retired = False
        """No more deliveries begin."""
        self._remaining = 0
        """As of the last answer."""
        self._pending = 0
        """What the settlement costs that was not answered yet."""

    @property
    def available(self) -> int:
        """What the account can spend, here or elsewhere, as far as is known."""
        return self.balance + max(0, self.left)

    @property
    def has_spent(self) -> bool:
        """Whether there is something to settle."""
        return any(book.count != book.frozen_count for book in self.books)

    def begin(self, remaining: int, balance: int) -> None:
        """The lease is there, and may be spent once it is known until when."""
        self.left = self._remaining = remaining
        self.balance = balance
        self.low = remaining // 2
        self.used_at = _now()

    def take(self, quantity: int, cache_result: int, *, guest: bool) -> LeasePayment | None:
        """Sets aside for one delivery; None when the lease does not cover it."""
        now = _now()
        if now >= self.spend_until or self.is_retired:
            return None
        book = self.books[cache_result]
        amount = -(-quantity * book.numerator // book.denominator)
        amount = max(amount, book.minimum)
        left = self.left - amount
        if left < 0 and not self.unlimited:
            return None
        self.left = left
        if left < self.low and not self.unlimited:
            self.low = -1
            self.wake()
        self.in_flight += 1
        self.in_flight_amount += amount
        self.used_at = now
        limit = now + self.transfer_s + quantity * self.s_per_byte
        return LeasePayment(self, book, quantity, amount, limit, guest)

    def retire(self) -> None:
        """No more deliveries begin; it is closed when those that have begun have ended."""
        self.is_retired = True
        self.wake()

    def freeze(self, headroom: int, live_ms: int, *, final: bool) -> Settlement:
        """What is to be settled now. The settlement before must have been answered.

        ``headroom``: what the lease should have after it, besides what is under way.
        """
        self._pending = sum(book.bound for book in self.books)
        totals = [book.freeze() for book in self.books]
        target = 0 if final else min(self.in_flight_amount + headroom, _MAX_AMOUNT)
        return self.slot.freeze(totals, target, live_ms, final=final)

    def answered(self, settlement: Settlement, remaining: int, balance: int) -> None:
        """A settlement was done, and this is what the lease has after it."""
        self.left += self._pending + remaining - self._remaining
        self._remaining = remaining
        self._pending = 0
        self.balance = balance
        self.low = self.left // 2
        self.slot.answer(settlement.number)


class LeasePayment:
    """A payment out of a lease; see ``payments.Payment``."""

    __slots__ = (
        "_book",
        "_delivered",
        "_guest",
        "_is_settled",
        "_limit",
        "_quantity",
        "amount",
        "lease",
    )

    hold_id = ""

    def __init__(
        self,
        lease: Lease,
        book: Book,
        quantity: int,
        amount: int,
        limit: float,
        guest: bool,  # noqa: FBT001 (made once, a request)
    ) -> None:
        self.lease = lease
        self.amount = amount
        self._book = book
        self._quantity = quantity
        self._limit = limit
        self._guest = guest
        self._delivered = 0
        self._is_settled = False
        if guest:
            book.admitted += quantity
            book.words[book.words_at + ADMITTED] = book.admitted
            book.waiting += 1
            book.words[book.words_at + WAITING] = book.waiting

    @property
    def currency(self) -> str:
        """See Payment."""
        return self.lease.currency

    @property
    def available(self) -> int:
        """See Payment."""
        return self.lease.available

    @property
    def ends_at(self) -> float:
        """See Payment."""
        cut_at = self.lease.cut_at
        return min(self._limit, cut_at)

    def price_of(self, quantity: int) -> int:
        """What so many bytes besides come to."""
        return self._book.price(self._quantity + quantity) - self.amount

    def extend(self, quantity: int) -> bool:
        """See Payment."""
        lease, book = self.lease, self._book
        if self._is_settled or _now() >= lease.cut_at:
            return False
        more = self.price_of(quantity)
        if more > lease.left and not lease.unlimited:
            return False
        if self._guest:
            book.admitted += quantity
            book.words[book.words_at + ADMITTED] = book.admitted
        lease.left -= more
        lease.in_flight_amount += more
        self.amount += more
        self._quantity += quantity
        self._limit += quantity * lease.s_per_byte
        if lease.left < lease.low and not lease.unlimited:
            lease.low = -1
            lease.wake()
        return True

    def deliver(self, total: int) -> None:
        """See Payment."""
        before, book = self._delivered, self._book
        more = total - before
        if not more or self._is_settled:
            return
        if self._guest:
            book.guest += more
            book.words[book.words_at + GUEST] = book.guest
        else:
            book.own += more
            book.words[book.words_at + OWN] = book.own
        if not before:
            self._begin(book, 1)
        elif not total:
            self._begin(book, -1)
        self._delivered = total

    def settle(self) -> None:
        """See Payment."""
        if self._is_settled:
            return
        self._is_settled = True
        lease, book, delivered = self.lease, self._book, self._delivered
        left = lease.left + self.amount
        if delivered:
            left -= book.end(delivered)
        lease.left = left
        lease.in_flight_amount -= self.amount
        lease.in_flight -= 1
        if self._guest:
            self._end_as_guest(book)
        if not lease.in_flight and lease.is_retired:
            lease.wake()

    def _begin(self, book: Book, count: int) -> None:
        """The first bytes have left (1), or it turned out that none have (-1).

        Noted after the bytes: a kill between the two costs nobody.
        """
        book.begun += count
        book.words[book.words_at + BEGUN] = book.begun
        if self._guest:
            book.waiting -= count
            book.words[book.words_at + WAITING] = book.waiting

    def _end_as_guest(self, book: Book) -> None:
        """Nothing more will be reported."""
        book.admitted -= self._quantity - self._delivered
        book.words[book.words_at + ADMITTED] = book.admitted
        if not self._delivered:
            book.waiting -= 1
            book.words[book.words_at + WAITING] = book.waiting
