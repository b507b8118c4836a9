"""What a grown ledger costs: an empty store beside one of a million entries, and bytes an entry."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.load import BATCH_DEBIT, DEBIT, GRANT, Load, Target, grants, memory_mib
from bench.servers import Servers
from services.cli.output import table

ACCOUNTS = 100_000
BATCH = 500
FACE = "envoy"


def measure_growth(servers: Servers, home: Path, entries: int, rounds: int, seconds: float) -> None:
    """Fills one of two stores, then measures both by turns; audits the filled one."""
    load = Load()
    empty = asyncio.run(servers.credits(FACE, home / "empty", "empty"))
    grown = asyncio.run(servers.credits(FACE, home / "grown", "grown"))
    for target in (empty, grown):
        target.all_of(GRANT, grants(ACCOUNTS))
    before, memory = bytes_on_disk(home / "grown"), memory_mib(grown.pid)
    batches = itertools.islice(load.batches(ACCOUNTS, BATCH), entries // BATCH)
    filled = grown.all_of(BATCH_DEBIT, batches, in_flight=2)
    size = (bytes_on_disk(home / "grown") - before) / (filled.calls * BATCH)
    print(f"\n{filled.calls * BATCH:,} debits by BatchDebit, {filled.rate * BATCH:,.0f} a second:")
    print(f"{size:.0f} bytes on disk an entry, its request record and indexes included;")
    print(f"the service's own memory: {memory:.0f} MiB before, {memory_mib(grown.pid):.0f} after.")

    def compare(accounts: int, in_flight: int) -> tuple[str, str, int]:
        return _compare(empty, grown, lambda: load.unary(accounts), in_flight, rounds, seconds)

    rows = [
        (f"Debit, {name}, {in_flight} in flight", *compare(accounts, in_flight))
        for name, accounts in (("hot", 0), (f"{ACCOUNTS:,} accounts", ACCOUNTS))
        for in_flight in (32, 200)
    ]
    table("Grown beside empty", ("case", "ratio", "rounds", "grown/s"), rows)
    asyncio.run(servers.end(grown))
    command = [sys.executable, "-m", "services.cli", "audit", "--store", str(home / "grown")]
    audit = subprocess.run(command, capture_output=True, text=True, check=False)
    print(audit.stdout + audit.stderr)


def _compare(
    empty: Target,
    grown: Target,
    messages: Callable[[], Iterator[bytes]],
    in_flight: int,
    rounds: int,
    seconds: float,
) -> tuple[str, str, int]:
    ratios, rates = [], []
    for _ in range(rounds):
        few = empty.run(DEBIT, messages(), in_flight, seconds).rate
        many = grown.run(DEBIT, messages(), in_flight, seconds).rate
        ratios.append(many / few)
        rates.append(many)
    span = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return f"{statistics.median(ratios):.2f}", span, round(statistics.median(rates))


def bytes_on_disk(store: Path) -> int:
    """What the store takes on disk."""
    return sum(path.stat().st_blocks * 512 for path in store.rglob("*") if path.is_file())
