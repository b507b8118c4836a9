"""The order in which the disk tier forgets: first what is worth least to have.

GreedyDual-Size-Frequency (Cherkasova, "Improving WWW Proxies Performance with
Greedy-Dual-Size-Frequency Caching Policy", HP Labs 1998, after Cao and Irani 1997). What an object
is worth, for each byte of room: how often it was used here, times what a miss costs, by its size. A
miss costs a round trip to the chain and the object's bytes. What is forgotten raises the ground on
which later ones start, so that old fame fades.

Two things are ours, both measured (bench/edge/hit_ratio.py): a round trip counts as
``ROUND_TRIP_BYTES``, which trades hits by objects for hits by bytes; and what was never used since
it came counts as an eighth of a use, so that a scan goes as it came. A hit costs an addition; the
heap is put right when something is to be forgotten.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

ROUND_TRIP_BYTES = 64 * 1024
"""How many bytes a round trip to the chain service is worth."""

_BLOCK_BYTES = 4096  # smaller files take no less room
_NEWCOMER = 1 / 8


class _Entry:
    __slots__ = ("here", "key", "rate", "uses", "worth")

    def __init__(self, key: str, size_bytes: int, ground: float) -> None:
        self.key = key
        self.here = True
        self.rate = ROUND_TRIP_BYTES / max(size_bytes, _BLOCK_BYTES) + 1
        self.uses = _NEWCOMER
        self.worth = ground + self.uses * self.rate


class WorthOrder:
    """Keys in the order of what they are worth."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        # Each entry stands here once, with a worth that it had: never more than it has now.
        self._heap: list[tuple[float, int, _Entry]] = []
        self._ground = 0.0
        self._turn = count()  # among equals the one that came first goes first

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, key: str, size_bytes: int) -> None:
        """Adds a key that is not there yet."""
        entry = self._entries[key] = _Entry(key, size_bytes, self._ground)
        self._push(entry)

    def use(self, key: str) -> None:
        """Notes a hit."""
        entry = self._entries[key]
        entry.uses += 1
        entry.worth = max(entry.worth, self._ground + entry.uses * entry.rate)

    def discard(self, key: str) -> None:
        """Removes a key, if it is there."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        entry.here = False
        if len(self._heap) > 2 * len(self._entries) + 100:
            self._heap = [item for item in self._heap if item[2].here]
            heapq.heapify(self._heap)

    def victim(self, spare: Callable[[str], bool]) -> str | None:
        """The key to forget next (it stays until ``discard``); None when all are to be spared."""
        spared = []
        found = None
        while self._heap and found is None:
            worth, _, entry = heapq.heappop(self._heap)
            if not entry.here:
                continue
            if worth < entry.worth:
                self._push(entry)
            elif spare(entry.key):
                # It is not looked at again before others of its kind were.
                entry.worth += entry.rate
                spared.append(entry)
            else:
                self._ground = worth
                self._push(entry)
                found = entry.key
        for entry in spared:
            self._push(entry)
        return found

    def _push(self, entry: _Entry) -> None:
        heapq.heappush(self._heap, (entry.worth, next(self._turn), entry))
