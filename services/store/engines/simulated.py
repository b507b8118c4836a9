"""A database in memory that fails on purpose, for tests: seeded, and as nasty as a real cluster.

It has FoundationDB's semantics: snapshots by version, conflicts between what a transaction read and
what others wrote since, commits that end unknown (applied, not applied, applied later), snapshots
that grow too old, delays, and crashes of its clients. Everything runs in the event loop, so a test
that uses it repeats itself exactly with the same seed.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left, bisect_right, insort
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from services.store.errors import OperationTooLargeError, StoreUnavailableError
from services.store.layer import Layer, Snapshot, add_to_counter
from services.store.optimistic import (
    BUDGET_S,
    MARK_BYTES,
    MARKERS,
    AttemptFailed,
    CommitUnknown,
    Conflict,
    OptimisticEngine,
)
from services.store.port import MAX_OPERATION_BYTES

T = TypeVar("T")
_Range = tuple[bytes, bytes]

REMEMBERED_COMMITS = 2_000
"""Snapshots that are older than this many commits are too old."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what goes wrong, as probabilities."""

    conflict: float = 0.05
    too_old: float = 0.03
    unknown_applied: float = 0.05
    unknown_lost: float = 0.05
    unknown_late: float = 0.05
    """The commit is applied later, if nothing conflicts by then."""
    landing: float = 0.3
    """How soon: for each late commit, at each step of any client."""
    slow: float = 0.0
    """How often a step takes long, by the event loop's clock."""
    longest_s: float = 0.05
    """How long at most."""


NO_FAULTS = Faults(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(slots=True, eq=False)
class _Request:
    """A commit on its way."""

    read_version: int
    reads: list[_Range]
    layer: Layer
    marker: bytes
    mark: bytes


@dataclass(slots=True)
class _Data:
    """Every key's values by version."""

    versions: dict[bytes, list[int]] = field(default_factory=dict)
    values: dict[bytes, list[bytes | None]] = field(default_factory=dict)
    keys: list[bytes] = field(default_factory=list)
    cleared: deque[tuple[int, bytes]] = field(default_factory=deque)
    """Keys that may be forgotten once nobody can read an older version."""

    def get(self, key: bytes, version: int) -> bytes | None:
        versions = self.versions.get(key)
        place = bisect_right(versions, version) if versions else 0
        return self.values[key][place - 1] if place else None

    def between(self, begin: bytes, end: bytes) -> list[bytes]:
        return self.keys[bisect_left(self.keys, begin) : bisect_left(self.keys, end)]

    def put(self, key: bytes, value: bytes | None, version: int, oldest: int) -> None:
        if key not in self.versions:
            self.versions[key], self.values[key] = [], []
            insort(self.keys, key)
        forgotten = max(0, bisect_right(self.versions[key], oldest) - 1)
        del self.versions[key][:forgotten], self.values[key][:forgotten]
        self.versions[key].append(version)
        self.values[key].append(value)
        if value is None:
            self.cleared.append((version, key))

    def forget(self, oldest: int) -> None:
        """Drops the keys that were cleared by then, and not written since."""
        while self.cleared and self.cleared[0][0] <= oldest:
            version, key = self.cleared.popleft()
            if self.versions.get(key, ())[-1:] == [version]:
                del self.versions[key], self.values[key]
                del self.keys[bisect_left(self.keys, key)]


class SimulatedCluster:
    """The data, and what befalls it. Any number of clients use it by ``engine``."""

    def __init__(self, seed: int, faults: Faults | None = None) -> None:
        self.random = random.Random(seed)  # noqa: S311 (repeatable on purpose)
        self.faults = faults or Faults()
        self.reachable = True
        """Set to False to cut every client off."""
        self.generation = 0
        """Counts the crashes."""
        self.counts: Counter[str] = Counter()
        """How often each fault happened, by the names in ``Faults`` and others as below."""
        self.version = 1
        self.data = _Data()
        self._commits: deque[tuple[int, list[_Range]]] = deque(maxlen=REMEMBERED_COMMITS)
        self._in_flight: list[_Request] = []
        self._late: list[_Request] = []
        self._dead: set[bytes] = set()

    def engine(
        self, *, client: bytes = b"", lanes: int = 4, budget_s: float = BUDGET_S
    ) -> OptimisticEngine:
        """A client of this cluster, by this name; it dies in the next crash."""
        client = client or self.random.randbytes(16)
        return OptimisticEngine(
            SimulatedDatabase(self, client),
            client=client,
            lanes=lanes,
            readers=16,
            budget_s=budget_s,
        )

    def crash(self) -> None:
        """Kills every client. Each commit in flight is applied or lost; what is committed stays."""
        self.generation += 1
        for request in self._in_flight:
            if self.random.random() < 0.5:
                self._apply(request)
        self._in_flight.clear()

    def kill(self, client: bytes) -> None:
        """Kills one client. Each of its commits in flight is applied, lost, or applied later."""
        self._dead.add(client)
        for request in list(self._in_flight):
            if request.marker.startswith(MARKERS + client):
                self._in_flight.remove(request)
                fate = self.random.choice(("killed_applied", "killed_lost", "killed_late"))
                self.counts[fate] += 1
                if fate == "killed_applied":
                    self._apply(request)
                elif fate == "killed_late":
                    self._late.append(request)

    def is_alive(self, client: bytes) -> bool:
        """Whether nobody has killed it."""
        return client not in self._dead

    @property
    def undecided(self) -> int:
        """How many commits of any client are under way, or may still be applied."""
        return len(self._in_flight) + len(self._late)

    @property
    def oldest(self) -> int:
        """The oldest version that can be read."""
        return self._commits[0][0] if len(self._commits) == REMEMBERED_COMMITS else 0

    async def delay(self) -> None:
        """Lets others go first, and late commits land."""
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)
        if self.faults.slow and self._hits(self.faults.slow):
            self.counts["slow"] += 1
            await asyncio.sleep(self.random.random() * self.faults.longest_s)
        for request in list(self._late):
            if self._hits(self.faults.landing):
                self._late.remove(request)
                landed = self._apply(request) is not None
                self.counts["late_applied" if landed else "late_lost"] += 1

    async def commit(self, request: _Request) -> int:
        """Commits a request, or does what the dice say."""
        self._in_flight.append(request)
        await self.delay()
        if request not in self._in_flight:
            raise StoreUnavailableError("the simulated client crashed")
        self._in_flight.remove(request)
        faults = self.faults
        if self._hits(faults.conflict):
            self.counts["conflict"] += 1
            raise AttemptFailed("a simulated conflict")
        if self._hits(faults.unknown_lost):
            self.counts["unknown_lost"] += 1
            raise CommitUnknown("a simulated commit_unknown_result, not applied")
        if self._hits(faults.unknown_late):
            self.counts["unknown_late"] += 1
            self._late.append(request)
            raise CommitUnknown("a simulated transaction_timed_out, perhaps applied later")
        version = self._apply(request)
        if version is None:
            self.counts["not_committed"] += 1
            raise Conflict("not_committed")
        if self._hits(faults.unknown_applied):
            self.counts["unknown_applied"] += 1
            raise CommitUnknown("a simulated commit_unknown_result, applied")
        return version

    def _hits(self, probability: float) -> bool:
        return self.random.random() < probability

    def _apply(self, request: _Request) -> int | None:
        """Applies a request, unless it conflicts; gives its version."""
        if request.read_version < self.oldest or self._conflicts(request):
            return None
        self.version += self.random.randint(1, 1000)
        writes = list(self._writes(request, self.version))
        self._commits.append((self.version, [(key, key + b"\x00") for key, _ in writes]))
        for key, value in writes:
            self.data.put(key, value, self.version, self.oldest)
        self.data.forget(self.oldest)
        return self.version

    def _conflicts(self, request: _Request) -> bool:
        for version, writes in reversed(self._commits):
            if version <= request.read_version:
                return False
            for begin, end in writes:
                if any(begin < high and low < end for low, high in request.reads):
                    return True
        return False

    def _writes(self, request: _Request, version: int) -> list[tuple[bytes, bytes | None]]:
        """What a request puts (None: clears) at each key, now that its version is known."""
        layer, present = request.layer, version - 1
        stamp = version.to_bytes(8, "big") + b"\x00\x00"
        puts: dict[bytes, bytes | None] = {}
        for begin, end in layer.cleared:
            puts.update(dict.fromkeys(self.data.between(begin, end)))
        puts.update(layer.values)
        for key, delta in layer.deltas.items():
            puts[key] = add_to_counter(self.data.get(key, present), delta)
        for number, (prefix, value) in enumerate(layer.appends):
            puts[prefix + stamp + number.to_bytes(2, "big")] = value
        puts[request.marker] = request.mark + stamp
        return list(puts.items())


class SimulatedDatabase:
    """One client's connection to a cluster: see ``services.store.optimistic.Database``."""

    def __init__(self, cluster: SimulatedCluster, client: bytes = b"") -> None:
        self.cluster = cluster
        self.client = client
        self.generation = cluster.generation

    def begin(self) -> _SimulatedAttempt:
        """As the seam says."""
        return _SimulatedAttempt(self)

    async def pause(self, failures: int) -> None:
        """As the seam says."""
        await asyncio.sleep(0 if failures < 20 else 0.001)

    async def close(self) -> None:
        """As the seam says."""

    def check(self) -> None:
        """Refuses to go on after a crash, or while the cluster is cut off."""
        if self.generation != self.cluster.generation or not self.cluster.is_alive(self.client):
            raise StoreUnavailableError("the simulated client crashed")
        if not self.cluster.reachable:
            self.cluster.counts["unreachable"] += 1
            raise AttemptFailed("the simulated cluster is not reachable")


class _SimulatedAttempt:
    """One transaction."""

    def __init__(self, database: SimulatedDatabase) -> None:
        self._database = database
        self._cluster = database.cluster
        self._version: int | None = None
        self._reads: list[_Range] = []

    async def marked(self, marker: bytes) -> tuple[bytes, int] | None:
        """As the seam says."""
        snapshot = await self._snapshot()
        value = snapshot.get(marker)
        if value is None:
            return None
        return value[:MARK_BYTES], int.from_bytes(value[MARK_BYTES : MARK_BYTES + 8], "big")

    async def run(self, reads: Sequence[bytes], work: Callable[[Snapshot], T]) -> T:
        """As the seam says."""
        snapshot = await self._snapshot()
        snapshot.get_many(reads)
        return work(snapshot)

    async def read_version(self) -> int:
        """As the seam says."""
        return (await self._snapshot()).version

    async def commit(self, layer: Layer, marker: bytes, mark: bytes) -> int:
        """As the seam says."""
        snapshot = await self._snapshot()
        snapshot.get(marker)
        return await self._cluster.commit(
            _Request(snapshot.version, self._reads, layer, marker, mark)
        )

    async def _snapshot(self) -> _SimulatedSnapshot:
        self._database.check()
        await self._cluster.delay()
        self._database.check()
        if self._version is None:
            self._version = self._cluster.version
        elif self._version < self._cluster.oldest or (
            self._cluster.random.random() < self._cluster.faults.too_old
        ):
            self._cluster.counts["too_old"] += 1
            raise AttemptFailed("transaction_too_old")
        return _SimulatedSnapshot(self._cluster.data, self._version, self._reads)


class _SimulatedSnapshot:
    """The data at one version; notes what is read."""

    def __init__(self, data: _Data, version: int, reads: list[_Range]) -> None:
        self._data = data
        self.version = version
        self._reads = reads

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        self._reads.append((key, key + b"\x00"))
        return self._data.get(key, self.version)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys."""
        return [self.get(key) for key in keys]

    def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """The pairs of a range; what lies beyond the limit counts as not read."""
        pairs: list[tuple[bytes, bytes]] = []
        size_bytes = 0
        keys = self._data.between(begin, end)
        for key in reversed(keys) if reverse else keys:
            value = self._data.get(key, self.version)
            if value is None:
                continue
            pairs.append((key, value))
            size_bytes += len(key) + len(value)
            if size_bytes > MAX_OPERATION_BYTES:
                raise OperationTooLargeError(f"a range has more than {MAX_OPERATION_BYTES} bytes")
            if len(pairs) == limit:
                begin, end = (key, end) if reverse else (begin, key + b"\x00")
                break
        self._reads.append((begin, end))
        return pairs
