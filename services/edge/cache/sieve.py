"""The order in which the disk tier forgets: SIEVE.

Algorithm: Zhang et al., "SIEVE is Simpler than LRU" (NSDI 2024). Entries stay where they were put;
a hand moves from the oldest to the newest, spares (once) those that were used since it last came
by, and takes the first that was not. A hit costs one assignment.
"""

from __future__ import annotations

from collections.abc import Callable


class _Link:
    __slots__ = ("key", "newer", "older", "used")

    def __init__(self, key: str) -> None:
        self.key = key
        self.used = False
        self.newer: _Link | None = None
        self.older: _Link | None = None


class Sieve:
    """Keys in the order in which they were added, and a hand."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}
        self._newest: _Link | None = None
        self._oldest: _Link | None = None
        self._hand: _Link | None = None

    def __len__(self) -> int:
        return len(self._links)

    def add(self, key: str) -> None:
        """Adds a key that is not there yet, as the newest."""
        link = self._links[key] = _Link(key)
        link.older = self._newest
        if self._newest is not None:
            self._newest.newer = link
        self._newest = link
        if self._oldest is None:
            self._oldest = link

    def use(self, key: str) -> None:
        """Notes a hit."""
        self._links[key].used = True

    def discard(self, key: str) -> None:
        """Removes a key, if it is there."""
        link = self._links.pop(key, None)
        if link is None:
            return
        if self._hand is link:
            self._hand = link.newer
        if link.newer is None:
            self._newest = link.older
        else:
            link.newer.older = link.older
        if link.older is None:
            self._oldest = link.newer
        else:
            link.older.newer = link.newer

    def victim(self, spare: Callable[[str], bool]) -> str | None:
        """The key to forget next (it stays until ``discard``); None when all are to be spared."""
        # Two rounds are enough: the first takes every mark away.
        for _ in range(2 * len(self._links)):
            link = self._hand or self._oldest
            if link is None:
                break
            self._hand = link.newer
            if link.used:
                link.used = False
            elif not spare(link.key):
                self._hand = link
                return link.key
        return None
