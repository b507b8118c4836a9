"""Files of the cache that another program was told to send: they stay until it has sent them."""

from __future__ import annotations

from collections import Counter


class Loans:
    """Counts who sends what. What is lent is not forgotten to make room."""

    def __init__(self) -> None:
        self._lent: Counter[str] = Counter()

    def __contains__(self, cid: object) -> bool:
        return cid in self._lent

    def __len__(self) -> int:
        return len(self._lent)

    def lend(self, cid: str) -> None:
        """Notes one more that sends an object; each ends with ``give_back``."""
        self._lent[cid] += 1

    def give_back(self, cid: str) -> None:
        """Notes that one of them has ended."""
        self._lent[cid] -= 1
        if not self._lent[cid]:
            del self._lent[cid]
