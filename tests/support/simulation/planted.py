"""Bugs that are planted in the engine and the ledger, to see that the simulation finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

from services.store.engines.simulated import (
    SimulatedCluster,
    _Request,
    _SimulatedAttempt,
    _SimulatedSnapshot,
)
from services.store.optimistic import MARKERS, CommitUnknown
from services.store.requests import RequestRecords

Planted = Callable[[], AbstractContextManager[None]]


@contextmanager
def ignored_conflicts() -> Iterator[None]:
    """A commit succeeds although what it read has changed."""
    with patch.object(SimulatedCluster, "_conflicts", lambda *_: False):
        yield


@contextmanager
def forgotten_attempts() -> Iterator[None]:
    """After an unknown result it is tried again without looking whether it was applied."""

    async def marked(_self: object, _marker: bytes) -> None:
        return None

    with patch.object(_SimulatedAttempt, "marked", marked):
        yield


@contextmanager
def unknown_taken_for_done() -> Iterator[None]:
    """An unknown result counts as success, also when nothing was applied."""
    right = SimulatedCluster.commit

    async def commit(self: SimulatedCluster, request: _Request) -> int:
        try:
            return await right(self, request)
        except CommitUnknown:
            return self.version

    with patch.object(SimulatedCluster, "commit", commit):
        yield


@contextmanager
def stale_snapshots() -> Iterator[None]:
    """Now and then a snapshot is one of some commits ago."""
    right = _SimulatedAttempt._snapshot

    async def snapshot(self: _SimulatedAttempt) -> _SimulatedSnapshot:
        if self._version is None and self._cluster.random.random() < 0.05:
            commits = self._cluster._commits
            self._version = commits[-5][0] if len(commits) > 5 else None
        return await right(self)

    with patch.object(_SimulatedAttempt, "_snapshot", snapshot):
        yield


@contextmanager
def unwritten_requests() -> Iterator[None]:
    """The ledger does not write down which requests it has answered."""
    with patch.object(RequestRecords, "remember_all", lambda *_, **__: None):
        yield


@contextmanager
def late_writes_by_the_dead() -> Iterator[None]:
    """What a killed client had under way is applied later whatever has changed since."""
    right = SimulatedCluster._apply

    def apply(self: SimulatedCluster, request: _Request) -> int | None:
        if any(request.marker.startswith(MARKERS + client) for client in self._dead):
            request.reads = []
        return right(self, request)

    with patch.object(SimulatedCluster, "_apply", apply):
        yield


PLANTED: list[Planted] = [
    ignored_conflicts,
    forgotten_attempts,
    unknown_taken_for_done,
    stale_snapshots,
    unwritten_requests,
    late_writes_by_the_dead,
]
