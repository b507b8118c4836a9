"""Caches as policies alone, without bytes: the edge's own, and those to compare it with."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Protocol

from services.edge.cache.order import WorthOrder

_NEVER = 1 << 60


class Cache(Protocol):
    """A cache bounded in bytes."""

    def get(self, key: int, size_bytes: int) -> bool:
        """Asks for an object; whether it was there."""

    def put(self, key: int, size_bytes: int) -> None:
        """Takes an object that was not there and was read whole."""


class Lru:
    """The least recently used goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._kept: OrderedDict[int, int] = OrderedDict()

    def get(self, key: int, size_bytes: int) -> bool:  # noqa: ARG002 (of the protocol)
        """See Cache."""
        if key not in self._kept:
            return False
        self._kept.move_to_end(key)
        return True

    def put(self, key: int, size_bytes: int) -> None:
        """See Cache."""
        self._kept[key] = size_bytes
        self._left -= size_bytes
        while self._left < 0:
            self._left += self._kept.popitem(last=False)[1]


class Sieve:
    """SIEVE (Zhang et al., NSDI 2024): a hand spares, once, what was used since it came by."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        # The hand stands at the front; what it spared went to ``_passed`` without losing its place.
        self._ahead: OrderedDict[int, int] = OrderedDict()
        self._passed: OrderedDict[int, int] = OrderedDict()
        self._used: set[int] = set()

    def get(self, key: int, size_bytes: int) -> bool:  # noqa: ARG002 (of the protocol)
        """See Cache."""
        here = key in self._ahead or key in self._passed
        if here:
            self._used.add(key)
        return here

    def put(self, key: int, size_bytes: int) -> None:
        """See Cache."""
        self._left -= size_bytes
        while self._left < 0:
            if not self._ahead:
                self._ahead, self._passed = self._passed, self._ahead
            victim, its_bytes = self._ahead.popitem(last=False)
            if victim in self._used:
                self._used.discard(victim)
                self._passed[victim] = its_bytes
            else:
                self._left += its_bytes
        self._ahead[key] = size_bytes


class Disk:
    """The edge's disk tier: its own order, and its own way of making room."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._kept: dict[str, int] = {}
        self._order = WorthOrder()

    def get(self, key: int, size_bytes: int) -> bool:  # noqa: ARG002 (of the protocol)
        """See Cache."""
        name = str(key)
        if name not in self._kept:
            return False
        self._order.use(name)
        return True

    def put(self, key: int, size_bytes: int) -> None:
        """See Cache."""
        self._left -= size_bytes
        while self._left < 0:
            victim = self._order.victim(lambda _: False)
            assert victim is not None
            self._order.discard(victim)
            self._left += self._kept.pop(victim)
        self._order.add(str(key), size_bytes)
        self._kept[str(key)] = size_bytes


class SecondMiss:
    """Another cache that takes an object only when it is missed again."""

    def __init__(self, cache: Cache, remembered: int) -> None:
        self._cache = cache
        self._missed: OrderedDict[int, None] = OrderedDict()
        self._remembered = remembered

    def get(self, key: int, size_bytes: int) -> bool:
        """See Cache."""
        return self._cache.get(key, size_bytes)

    def put(self, key: int, size_bytes: int) -> None:
        """See Cache."""
        if key in self._missed:
            del self._missed[key]
            self._cache.put(key, size_bytes)
            return
        self._missed[key] = None
        if len(self._missed) > self._remembered:
            self._missed.popitem(last=False)


class Offline:
    """Knows the future (Belady 1966): what is asked for again last goes first.

    With sizes no order is the exact optimum, and finding that is NP-hard. By bytes this one comes
    close; ``by_objects`` weighs the wait by the size, which comes close to the most hits.
    """

    def __init__(self, max_bytes: int, requests: list[int], *, by_objects: bool) -> None:
        self._left = max_bytes
        self._by_objects = by_objects
        self._turn = -1
        self._next = _next_requests(requests)
        self._kept: dict[int, tuple[int, int]] = {}
        self._heap: list[tuple[int, int, int]] = []

    def get(self, key: int, size_bytes: int) -> bool:
        """See Cache."""
        self._turn += 1
        if key not in self._kept:
            return False
        self._keep(key, size_bytes)
        return True

    def put(self, key: int, size_bytes: int) -> None:
        """See Cache."""
        self._left -= size_bytes
        self._keep(key, size_bytes)
        while self._left < 0:
            _, again, victim = heapq.heappop(self._heap)
            if self._kept.get(victim, (0, -1))[1] == again:
                self._left += self._kept.pop(victim)[0]

    def _keep(self, key: int, size_bytes: int) -> None:
        again = self._next[self._turn]
        weight = size_bytes if self._by_objects else 1
        self._kept[key] = (size_bytes, again)
        heapq.heappush(self._heap, (-again * weight, again, key))


def _next_requests(requests: list[int]) -> list[int]:
    """When what is asked for is asked for again, for each request."""
    coming: dict[int, int] = {}
    result = [_NEVER] * len(requests)
    for turn in range(len(requests) - 1, -1, -1):
        result[turn] = coming.get(requests[turn], _NEVER)
        coming[requests[turn]] = turn
    return result
