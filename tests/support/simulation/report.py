"""What a simulation came to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tollmesh.credits.v1 import credits_pb2 as pb

HAPPENS = (
    "conflict",
    "not_committed",
    "too_old",
    "unknown_applied",
    "unknown_lost",
    "unknown_late",
    "late_applied",
    "late_lost",
    "slow",
    "unreachable",
    "killed_applied",
    "killed_lost",
    "killed_late",
    "process_killed",
    "clock_forwards",
    "clock_backwards",
    "retried",
    "replayed",
    "reused",
    "refused",
    "settled",
    *(name.removeprefix("ENTRY_KIND_").lower() for name in pb.EntryKind.keys()[1:]),
)
"""What must have happened in a run, or it proves nothing."""


@dataclass
class Report:
    """What a run came to."""

    seed: int
    operations: int = 0
    calls: int = 0
    entries: int = 0
    accounts: int = 0
    rounds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    digest: str = ""

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {self.counts[name]}" for name in HAPPENS)
        return (
            f"seed {self.seed}: {self.operations} operations in {self.calls} calls and "
            f"{self.rounds} rounds, {self.entries} entries of {self.accounts} accounts; {counts}; "
            f"trace {self.digest}"
        )
