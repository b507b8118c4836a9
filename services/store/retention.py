"""How long records were kept, by a clock that nobody can set.

The wall clock jumps: it is wrong after a start, somebody sets it, it is set right. If records went
by it, a jump forwards would remove those of requests that are repeated a minute later, and these
would be done again. So records go by the time for which services ran. It stands in the store, and
each process moves it on by what its monotonic clock counted. It starts with the wall clock's time,
and falls behind while nothing runs: records are then kept for longer.

Several processes may move it on. None does by more than LONGEST_STEP_S at once, so whoever has seen
it knows for ever that it is at most that much further than its own monotonic clock says; and what
is swept is LONGEST_STEP_S older than it must be.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from services.store.keys import Part, Subspace
from services.store.port import Operation, Store, Transaction
from services.store.records import is_intact, sealed

STEP_S: Final = 60
"""How much time must have passed to be written down: an idle store is written this often."""
LONGEST_STEP_S: Final = 120
_SECOND_US = 1_000_000
_STORED_BYTES = 8
_FAMILY = "retention"


class Retention:
    """The clock of one service's records; see the module. Made by ``open``."""

    __slots__ = ("_ahead_us", "_key", "_monotonic", "_seen_at", "_seen_us")

    def __init__(self, key: bytes, monotonic: Callable[[], float]) -> None:
        self._key = key
        self._monotonic = monotonic
        self._seen_us = 0
        """What stood in the store when it was seen last."""
        self._seen_at = 0.0
        """By the monotonic clock, and not before that moment."""
        self._ahead_us = 0.0
        """How far it is ahead of the monotonic clock, at most."""

    @classmethod
    async def open(
        cls,
        store: Store,
        *subspace: Part,
        wall_us: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> Retention:
        """The clock that a service's processes share; safe to repeat.

        ``wall_us`` is what it starts with in a new store; ``monotonic`` counts seconds. Raises
        store errors.
        """
        retention = cls(Subspace(_FAMILY, *subspace).key(), monotonic)
        await retention._move_on(store, wall_us(), only_new=True)
        return retention

    def now_us(self) -> int:
        """The time at which a record is made: never too early. Microseconds; never goes back."""
        return round(self._ahead_us + self._monotonic() * _SECOND_US)

    @property
    def past_us(self) -> int:
        """What was kept until then may go, whichever process made it."""
        return self._seen_us - LONGEST_STEP_S * _SECOND_US

    async def advance(self, store: Store) -> int:
        """Writes down what has passed, if it is worth it; gives ``past_us``. Raises store errors.

        Whoever sweeps calls this at least every LONGEST_STEP_S; else records are kept for longer.
        """
        passed_us = round((self._monotonic() - self._seen_at) * _SECOND_US)
        if passed_us >= STEP_S * _SECOND_US:
            await self._move_on(store, self._seen_us + min(passed_us, LONGEST_STEP_S * _SECOND_US))
        return self.past_us

    async def _move_on(self, store: Store, to_us: int, *, only_new: bool = False) -> None:
        def run(tx: Transaction) -> int:
            stored = tx.get(self._key)
            if stored is not None and is_intact(self._key, stored):
                now_us = int.from_bytes(stored[:_STORED_BYTES], "big")
                if only_new or to_us <= now_us:
                    return now_us
            # Of what is damaged nothing is known: a new beginning.
            now_us = max(0, to_us)
            tx.set(self._key, sealed(self._key, now_us.to_bytes(_STORED_BYTES, "big")))
            return now_us

        before = self._monotonic()
        self._seen_us = (await store.commit(Operation(run))).result
        self._seen_at = self._monotonic()
        # Its value is of some moment since ``before``.
        self._ahead_us = max(self._ahead_us, self._seen_us - before * _SECOND_US)
