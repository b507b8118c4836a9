"""The seam between the group commit and an engine. Inside this package only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from services.store.layer import Layer, Snapshot

T = TypeVar("T")

Work = Callable[[Snapshot], tuple[Layer, T]]
"""Runs a batch of operations on a snapshot: what to write, and a value. May run more than once."""


class Engine(Protocol):
    """An ordered map that many lanes commit to at once."""

    lanes: int
    """How many engine transactions may be in flight; each lane has at most one."""

    async def ready(self, lane: int) -> None:
        """Waits until it is worth while to make a batch for a lane; called before each."""

    async def transact(self, lane: int, reads: Sequence[bytes], work: Work[T]) -> tuple[T, int]:
        """Runs ``work`` and commits what it wrote, durably and exactly once.

        Gives the value of the run that was committed, and the commit's version (of the snapshot,
        when nothing was written). ``reads`` are keys that it will probably read. Raises
        ``StoreUnavailableError`` when the outcome is unknown.
        """

    async def read(self, run: Callable[[Snapshot], T]) -> tuple[T, int]:
        """Runs ``run`` on a snapshot with every commit answered so far; gives its version too."""

    async def close(self) -> None:
        """Lets go of what is open; nothing is in flight any more."""
