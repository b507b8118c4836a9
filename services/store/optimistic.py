"""Exactly-once commits over a database with optimistic transactions.

A commit can end unknown: applied, not applied, or (when the client stopped waiting) applied later.
So every transaction also writes a *marker*, a key of this client and lane, with the name of the
attempt and, by versionstamp, its commit version; and every transaction conflicts with any other
that writes the marker. After an unknown result the next attempt reads the marker first. Either it
names an earlier attempt: then that one was committed, and its value is the answer. Or it does not:
then this attempt's own commit, by writing the marker, makes it impossible for an earlier one to
land after all.

Source: FoundationDB's developer guide, "Transactions with unknown results" and "Non-Retryable
Errors". Unlike what the client library does by itself after ``commit_unknown_result``, the marker
also covers ``transaction_timed_out`` and ``cluster_version_changed``, whose commits may land late.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from services.store.engine import Work
from services.store.errors import StoreUnavailableError
from services.store.layer import Layer, Snapshot

T = TypeVar("T")

BUDGET_S = 10.0
MARKERS = b"\xffmarker/"
"""Where markers stand, above every user key: this, the client, the lane."""
MARKERS_END = b"\xffmarker0"
MARK_BYTES = 8


class AttemptFailed(BaseException):
    """This attempt was not committed, or it is known to be undecided: make another."""


class Conflict(AttemptFailed):
    """Others wrote what this attempt read; it was not committed."""


class CommitUnknown(BaseException):
    """This attempt was committed, or was not, or will be."""


class Attempt(Protocol):
    """One transaction of a database. Every method may raise ``AttemptFailed``."""

    async def marked(self, marker: bytes) -> tuple[bytes, int] | None:
        """What stands at a marker: the mark, and the version of the commit that made it."""

    async def run(self, reads: Sequence[bytes], work: Callable[[Snapshot], T]) -> T:
        """Runs work on the snapshot. ``reads`` are keys that it will probably read.

        Even if work reads nothing, the snapshot is one from before ``run`` returned.
        """

    async def read_version(self) -> int:
        """The version of the snapshot."""

    async def commit(self, layer: Layer, marker: bytes, mark: bytes) -> int:
        """Commits a layer, and a mark at a marker; gives the version.

        Conflicts with everything that wrote what was read, or the marker, since the snapshot.
        Raises ``CommitUnknown``.
        """


class Database(Protocol):
    """What makes attempts."""

    def begin(self) -> Attempt:
        """A new transaction on the latest state."""

    async def pause(self, failures: int) -> None:
        """Waits before another attempt, longer after more failures."""

    async def close(self) -> None:
        """Lets go of the connection."""


class Turns(Protocol):
    """How clients that commit to the same lanes spare each other conflicts; see ``turns``."""

    async def come(self, number: int) -> None:
        """Waits for this client's turn at a lane, if it takes turns there."""

    async def lost(self, number: int) -> None:
        """Learns of a conflict, and waits for the turn, if the lane takes turns now."""

    def reads(self, number: int) -> list[bytes]:
        """What a transaction of a lane reads besides what its work reads."""

    def leave(self, number: int, layer: Layer) -> None:
        """Adds to what a transaction of a lane writes that the turn is over."""

    def over(self, number: int) -> None:
        """Learns that a lane's work is done, or given up."""


class OptimisticEngine:
    """An engine over a database: it retries, and resolves unknown commits.

    ``client`` names this engine among all that ever use the database. At most ``lanes`` commits and
    ``readers`` reads are under way at once. ``budget_s`` is how long each tries before
    ``StoreUnavailableError``. Without ``turns`` it just tries again after a conflict.
    """

    def __init__(
        self,
        database: Database,
        *,
        client: bytes,
        lanes: int,
        readers: int,
        budget_s: float = BUDGET_S,
        turns: Turns | None = None,
    ) -> None:
        self.lanes = lanes
        self._database = database
        self._budget_s = budget_s
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._markers = MARKERS + client
        self._readers = asyncio.Semaphore(readers)
        self._marks = itertools.count(1)

    async def ready(self, lane: int) -> None:
        """As the seam says."""
        if self._turns is not None:
            await self._turns.come(lane)

    async def transact(self, lane: int, reads: Sequence[bytes], work: Work[T]) -> tuple[T, int]:
        """As the seam says."""
        undecided: dict[bytes, T] = {}
        try:
            return await self._persist(lambda: self._attempt(lane, reads, work, undecided), lane)
        finally:
            if self._turns is not None:
                self._turns.over(lane)

    async def read(self, run: Callable[[Snapshot], T]) -> tuple[T, int]:
        """As the seam says."""

        async def once() -> tuple[T, int]:
            attempt = self._database.begin()
            return await attempt.run((), run), await attempt.read_version()

        async with self._readers:
            return await self._persist(once)

    async def close(self) -> None:
        """As the seam says. Markers stay; a database sweeps old ones when it is opened."""
        await self._database.close()

    async def _attempt(
        self, lane: int, reads: Sequence[bytes], work: Work[T], undecided: dict[bytes, T]
    ) -> tuple[T, int]:
        """One attempt. ``undecided`` are the values of earlier ones that may be committed."""
        marker = self._markers + bytes([lane])
        attempt = self._database.begin()
        if undecided:
            found = await attempt.marked(marker)
            if found is not None and found[0] in undecided:
                return undecided[found[0]], found[1]
        if self._turns is not None:
            reads = [*reads, *self._turns.reads(lane)]
        layer, value = await attempt.run(reads, work)
        if self._turns is not None:
            self._turns.leave(lane, layer)
        if not layer and not undecided:
            return value, await attempt.read_version()
        mark = next(self._marks).to_bytes(MARK_BYTES, "big")
        try:
            return value, await attempt.commit(layer, marker, mark)
        except CommitUnknown as error:
            undecided[mark] = value
            raise AttemptFailed(str(error)) from error

    async def _persist(self, once: Callable[[], Awaitable[T]], lane: int | None = None) -> T:
        """Tries until it works or the budget is spent."""
        until = self._loop.time() + self._budget_s
        failures = 0
        while True:
            try:
                return await once()
            except AttemptFailed as error:
                failures += 1
                if self._loop.time() >= until:
                    raise StoreUnavailableError(f"gave up, try {failures}: {error}") from error
                conflict = isinstance(error, Conflict)
            if conflict and lane is not None and self._turns is not None:
                await self._turns.lost(lane)
            else:
                await self._database.pause(failures)
