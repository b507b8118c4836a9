"""Leases of this edge, in a file that outlives the process.

Everything that a killed process must not forget is a number in memory pages shared with the file:
one aligned word of 64 bits, written by one instruction, so a SIGKILL finds it as it was before or
as it is after, never in between. Each event (bytes that left, a settlement that begins, an answer)
is committed by one such word.

A settlement is frozen before it is asked for, as totals since the lease was opened, in one of two
banks by turns. Its lines are the differences to the totals of the settlement before, so whoever
repeats it, this process or the next, sends the same request.

Format: slots of 640 bytes; 40 words in the machine's byte order, then NUL-padded texts.

| word | what |
|---|---|
| 0 | state: 0 free, 1 asked for, 2 open |
| 1, 2 | number of the last settlement that was frozen; that was answered |
| 3, 4, 5, 6 | what was asked for: amount, minimum, life in ms, expiry policy |
| 7 | when the last settlement was frozen (Unix time in s) |
| 8 to 22 | for each CacheResult five totals: bytes delivered here; deliveries begun; bytes of guests; bytes admitted for guests; guests that have not begun (not a total) |
| 24 to 31, 32 to 39 | the banks of even and odd settlements: bytes and deliveries of each CacheResult, target amount, life in ms (bit 62: final) |

Texts (ASCII): key (32 bytes: request ids are made of it), account id (64), owner (64), hold id (64),
meter (32), currency (32).
"""  # noqa: E501 (a row of the table is a line)

from __future__ import annotations

import mmap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from services.edge.slots import open_slots

SLOT_BYTES = 640
_WORD_BYTES = 8
_TEXTS_AT = 40 * _WORD_BYTES
_LENGTHS = (32, 64, 64, 64, 32, 32)
_HOLD_ID_AT = _TEXTS_AT + 160
_STATE, _FROZEN, _ANSWERED, _AMOUNT, _FROZEN_AT, _TOTALS = 0, 1, 2, 3, 7, 8
_BANKS, _BANK_WORDS = 24, 8
_FREE, _ASKED_FOR, _OPEN = 0, 1, 2
_FINAL = 1 << 62
RESULTS = 3
"""How many values CacheResult has; a class of prices each."""
OWN, BEGUN, GUEST, ADMITTED, WAITING = range(5)
"""Where the totals of a class stand, from its first word."""
TOTALS = 5


class LeaseTerms(NamedTuple):
    """What a lease is asked for with."""

    key: str
    account_id: str
    owner: str
    meter: str
    currency: str
    amount: int
    min_amount: int
    live_ms: int
    policy: int
    """An ExpiryPolicy."""


class Spent(NamedTuple):
    """Deliveries of one class, summed up."""

    quantity: int = 0
    deliveries: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a settlement asks for."""

    number: int
    lines: tuple[Spent, ...]
    """By CacheResult."""
    target_amount: int
    live_ms: int
    """0: as it was."""
    final: bool


class Slot:
    """A lease's place in the journal."""

    def __init__(self, pages: mmap.mmap, words: memoryview, number: int) -> None:
        self.words = words
        """Of the whole file."""
        self.number = number
        self._pages = pages
        self._at = number * SLOT_BYTES // _WORD_BYTES

    def totals_at(self, cache_result: int) -> int:
        """Where the totals of a class begin in ``words``."""
        return self._at + _TOTALS + TOTALS * cache_result

    @property
    def is_taken(self) -> bool:
        """Whether there is a lease in it."""
        return bool(self.words[self._at + _STATE] != _FREE)

    @property
    def is_open(self) -> bool:
        """Whether it is known which lease was made."""
        return bool(self.words[self._at + _STATE] == _OPEN)

    @property
    def terms(self) -> LeaseTerms:
        """What the lease was asked for with."""
        key, account_id, owner, _, meter, currency = self._texts()
        amount, least, live_ms, policy = self.words[self._at + _AMOUNT : self._at + _AMOUNT + 4]
        return LeaseTerms(key, account_id, owner, meter, currency, amount, least, live_ms, policy)

    @property
    def hold_id(self) -> str:
        """The lease, once it is open."""
        return self._texts()[3]

    @property
    def frozen(self) -> int:
        """The number of the last settlement; 0 before the first."""
        return int(self.words[self._at + _FROZEN])

    @property
    def unanswered(self) -> Settlement | None:
        """The settlement that was not answered, if there is one."""
        number = self.frozen
        return None if number == self.words[self._at + _ANSWERED] else self.settlement(number)

    def ask(self, terms: LeaseTerms) -> None:
        """Notes that a lease is going to be asked for."""
        start, words = self.number * SLOT_BYTES, self.words
        self._pages[start : start + SLOT_BYTES] = bytes(SLOT_BYTES)
        texts = (terms.key, terms.account_id, terms.owner, "", terms.meter, terms.currency)
        at = start + _TEXTS_AT
        for text, length in zip(texts, _LENGTHS, strict=True):
            self._pages[at : at + length] = text.encode().ljust(length, b"\0")
            at += length
        numbers = (terms.amount, terms.min_amount, terms.live_ms, terms.policy)
        for position, number in enumerate(numbers, self._at + _AMOUNT):
            words[position] = number
        words[self._at + _STATE] = _ASKED_FOR  # last: a slot is whole, or not there

    def open(self, hold_id: str) -> None:
        """Notes which lease was made."""
        start = self.number * SLOT_BYTES + _HOLD_ID_AT
        self._pages[start : start + 64] = hold_id.encode().ljust(64, b"\0")
        self.words[self._at + _STATE] = _OPEN

    def freeze(
        self, totals: Sequence[Spent], target_amount: int, live_ms: int, *, final: bool
    ) -> Settlement:
        """Notes what the next settlement asks for. The one before must have been answered.

        ``totals``: what was delivered since the lease was opened, by CacheResult.
        """
        number = self.frozen + 1
        at, words = self._bank(number), self.words
        for result, (quantity, deliveries) in enumerate(totals):
            words[at + 2 * result] = quantity
            words[at + 2 * result + 1] = deliveries
        words[at + 6] = target_amount
        words[at + 7] = live_ms | (_FINAL if final else 0)
        words[self._at + _FROZEN_AT] = int(time.time())
        words[self._at + _FROZEN] = number
        return self.settlement(number)

    @property
    def frozen_at(self) -> int:
        """When the last settlement was frozen: Unix time in s."""
        return int(self.words[self._at + _FROZEN_AT])

    def settlement(self, number: int) -> Settlement:
        """A settlement, made from its totals and those before: the last one, or that before it."""
        before = self._bank_totals(number - 1) if number > 1 else (Spent(),) * RESULTS
        now = self._bank_totals(number)
        lines = tuple(
            Spent(after.quantity - first.quantity, after.deliveries - first.deliveries)
            for after, first in zip(now, before, strict=True)
        )
        target, live = self.words[self._bank(number) + 6 : self._bank(number) + 8]
        return Settlement(number, lines, target, live & ~_FINAL, bool(live & _FINAL))

    def answer(self, number: int) -> None:
        """Notes that a settlement was answered."""
        self.words[self._at + _ANSWERED] = number

    def delivered(self, *, with_unreported: bool) -> tuple[Spent, ...]:
        """All that was delivered, by CacheResult; perhaps with what guests have not reported."""
        return tuple(self._delivered(result, with_unreported) for result in range(RESULTS))

    def free(self) -> None:
        """There is nothing left to settle."""
        self.words[self._at + _STATE] = _FREE

    def _delivered(self, result: int, with_unreported: bool) -> Spent:  # noqa: FBT001 (its own)
        at = self.totals_at(result)
        own, begun, guest, admitted, waiting = self.words[at : at + TOTALS]
        if with_unreported:
            return Spent(own + max(guest, admitted), begun + waiting)
        return Spent(own + guest, begun)

    def _bank(self, number: int) -> int:
        return self._at + _BANKS + _BANK_WORDS * (number % 2)

    def _bank_totals(self, number: int) -> tuple[Spent, ...]:
        at = self._bank(number)
        return tuple(
            Spent(*self.words[at + 2 * result : at + 2 * result + 2]) for result in range(RESULTS)
        )

    def _texts(self) -> list[str]:
        at, texts = self.number * SLOT_BYTES + _TEXTS_AT, []
        for length in _LENGTHS:
            texts.append(self._pages[at : at + length].rstrip(b"\0").decode("ascii", "replace"))
            at += length
        return texts


class LeaseJournal:
    """The file. Used from one thread; nothing here waits for the disk.

    Args:
        path: the file; made when it is not there.
        slots: how many leases it has room for.
    """

    def __init__(self, path: Path, slots: int) -> None:
        self._pages, count = open_slots(path, SLOT_BYTES, slots)
        self._words = memoryview(self._pages).cast("Q")
        found = [Slot(self._pages, self._words, number) for number in range(count)]
        self._free = [slot for slot in reversed(found) if not slot.is_taken]
        self._left = [slot for slot in found if slot.is_taken]

    def left(self) -> list[Slot]:
        """What the process before this one left unsettled."""
        left, self._left = self._left, []
        return left

    def take(self) -> Slot | None:
        """A free slot; None when there is none."""
        return self._free.pop() if self._free else None

    def give_back(self, slot: Slot) -> None:
        """Frees a slot."""
        slot.free()
        self._free.append(slot)
