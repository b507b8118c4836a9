"""A hot account on FoundationDB: the credit service beside a naive transaction for each debit.

Two processes of each, the same face, the same client processes, by turns in each round; the ratio
of a round is what is quoted (the median of the rounds). Every debit is a new one and durable before
it is answered. In the end both ledgers must account for every debit.

Run: FDB_CLUSTER_FILE=... make bench-fdb [FDB_OPTIONS="--rounds 5 --seconds 3"]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import secrets
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub
from tollmesh.credits.v1.ledger_pb2_grpc import LedgerServiceStub

from bench.cluster import Cluster
from bench.fleet import Fleet, Job, Totals
from bench.load import ENOUGH, GRANT, HOT, Target, account_name, grants
from bench.peers.naive_fdb import CLUSTER_VARIABLE, DIRECTORY_VARIABLE, POOL_VARIABLE, Books
from services.cli.mesh.processes import Child, free_port, start, stop
from services.cli.output import table
from services.store.engines.foundationdb import destroy

POOLS = (1, 4, 16, 64)
NAIVE = "naive, hot"
OURS, ALONE = "credit service, hot", "credit service, hot, one process"


@dataclass
class Side:
    """The processes of one kind of service."""

    addresses: Sequence[str]
    children: Sequence[Child]
    made: int = 0
    """Debits that were answered."""


@dataclass(frozen=True)
class Case:
    """One kind of load."""

    side: Side
    accounts: int = 0
    batch: int = 0
    processes: int = 0
    """Of the service, that are called; 0: all."""


@dataclass
class Bench:
    """What is measured."""

    options: argparse.Namespace
    fleet: Fleet
    home: Path
    sides: list[Side] = field(default_factory=list)

    async def serve(self, module: str, environment: dict[str, str]) -> Side:
        """Starts the processes of a service."""
        count = self.options.services
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(count)]
        children = []
        for address in addresses:
            settings = {
                "TOLLMESH_CREDITS_LISTEN": address,
                "TOLLMESH_CREDITS_FACE": self.options.face,
                **environment,
            }
            name = f"{module}-{address.rpartition(':')[2]}"
            children.append(start(name, [sys.executable, "-m", module], self.home, settings))
        side = Side(addresses, children)
        self.sides.append(side)
        for address, child in zip(addresses, children, strict=True):
            await child.listening(address)
        return side

    def run(self, case: Case) -> Totals:
        """Measures once."""
        addresses = case.side.addresses[: case.processes or None]
        in_flight = 1 if case.batch else self.options.in_flight
        jobs = [
            Job(address, case.accounts, in_flight, self.options.seconds, case.batch)
            for address, _ in zip(itertools.cycle(addresses), range(self.fleet.clients))
        ]
        totals = self.fleet.run(jobs)
        case.side.made += totals.debits
        return totals

    async def end(self, side: Side) -> None:
        """Stops the processes of a service."""
        self.sides.remove(side)
        await stop(side.children)


def main() -> None:
    """Measures and prints."""
    options = _options()
    file = os.environ.get("FDB_CLUSTER_FILE")
    if not file:
        sys.exit("make bench-fdb: set FDB_CLUSTER_FILE to the cluster file of a running cluster")
    cluster = Cluster(Path(file))
    print(cluster.kind())
    print(
        f"{options.clients} client processes, {options.in_flight} calls of each in flight,"
        f" {options.services} service processes, {options.face} face; all on this machine with"
        f" {os.cpu_count()} cores.\n"
    )
    directory = f"tollmesh-bench-{secrets.token_hex(4)}"
    fleet = Fleet(options.clients)
    with tempfile.TemporaryDirectory(prefix="tollmesh-bench-") as home:
        bench = Bench(options, fleet, Path(home))
        try:
            _measure(bench, cluster, file, directory)
        finally:
            fleet.close()
            for side in list(bench.sides):
                asyncio.run(bench.end(side))
            for name in (directory, f"{directory}-naive"):
                asyncio.run(destroy(Path(file), name))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.fdb", description=__doc__.partition("\n")[0])
    whole = {"--rounds": 5, "--clients": 16, "--services": 2, "--in-flight": 16}
    whole |= {"--accounts": 1_000, "--batch": 100}
    for name, default in whole.items():
        parser.add_argument(name, type=int, default=default, help=f"(default {default})")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run (default 3)")
    parser.add_argument("--face", choices=("envoy", "grpcio"), default="envoy")
    return parser.parse_args()


def _measure(bench: Bench, cluster: Cluster, file: str, directory: str) -> None:
    options = bench.options
    store = {"TOLLMESH_CREDITS_STORE": f"fdb://{file}?directory={directory}"}
    ours = asyncio.run(bench.serve("services.credits", store))
    _grant(ours, options.accounts)
    naive = _tuned(bench, file, f"{directory}-naive")
    cases = {
        NAIVE: Case(naive),
        OURS: Case(ours),
        ALONE: Case(ours, processes=1),
        f"credit service, hot, BatchDebit of {options.batch}": Case(ours, batch=options.batch),
        f"naive, {options.accounts:,} accounts": Case(naive, options.accounts),
        f"credit service, {options.accounts:,} accounts": Case(ours, options.accounts),
    }
    rounds = [
        {name: bench.run(case) for name, case in cases.items()} for _ in range(options.rounds)
    ]
    _print(cases, rounds, options)
    _print_conflicts(bench, cluster, cases)
    _account(ours, options.accounts)
    taken, entries = Books.open(file, f"{directory}-naive").taken(ENOUGH)
    if not taken == entries == naive.made:
        sys.exit(f"naive: {taken:,} taken, {entries:,} entries, {naive.made:,} debits answered")
    print(f"naive: balances and entries account for all {taken:,} debits.")


def _tuned(bench: Bench, file: str, directory: str) -> Side:
    """The naive service with the number of threads that is best for the hot account."""
    rates: dict[int, float] = {}
    made = 0

    def served(threads: int) -> Side:
        environment = {CLUSTER_VARIABLE: file, DIRECTORY_VARIABLE: directory}
        environment |= {POOL_VARIABLE: str(threads), "TOLLMESH_CREDITS_STORE": "lmdb:///nowhere"}
        return asyncio.run(bench.serve("bench.peers.naive_fdb", environment))

    for threads in POOLS:
        side = served(threads)
        if not rates:
            _grant(side, bench.options.accounts)
        rates[threads] = bench.run(Case(side)).rate
        made += side.made
        asyncio.run(bench.end(side))
    best = max(rates, key=lambda threads: rates[threads])
    tried = ", ".join(f"{threads}: {rate:,.0f}/s" for threads, rate in rates.items())
    print(f"naive: {best} thread(s) in each process (tried {tried}).")
    side = served(best)
    side.made = made
    return side


def _grant(side: Side, accounts: int) -> None:
    Target(side.addresses[0], side.children[0].process.pid).all_of(GRANT, grants(accounts), 16)


def _print(
    cases: dict[str, Case], rounds: Sequence[dict[str, Totals]], options: argparse.Namespace
) -> None:
    rows = []
    for name, case in cases.items():
        ratios = [one[name].rate / one[NAIVE].rate for one in rounds]
        measured = [one[name] for one in rounds]
        shares = [sum(one.of(each) for one in measured) for each in case.side.addresses]
        rows.append(
            (
                name,
                f"{statistics.median(ratios):.1f}",
                f"{min(ratios):.1f} to {max(ratios):.1f}",
                round(statistics.median(one.rate for one in measured)),
                f"{statistics.median(one.percentile_ms(50) for one in measured):.1f}",
                f"{statistics.median(one.percentile_ms(99) for one in measured):.1f}",
                " : ".join(f"{share / sum(shares):.0%}" for share in shares),
            )
        )
    title = f"Medians of {options.rounds} rounds of {options.seconds:g} s"
    columns = ("case", "of naive, hot", "rounds", "debits/s", "p50 ms", "p99 ms", "by process")
    table(title, columns, rows)
    ratios = [one[OURS].rate / one[ALONE].rate for one in rounds]
    print(
        f"All processes beside one, hot: {statistics.median(ratios):.2f}"
        f" ({min(ratios):.2f} to {max(ratios):.2f}).\n"
    )


def _print_conflicts(bench: Bench, cluster: Cluster, cases: dict[str, Case]) -> None:
    """One more run of each, between two looks at the cluster's own counts."""
    rows = []
    before = cluster.transactions()
    for name, case in cases.items():
        debits = bench.run(case).debits
        after = cluster.transactions()
        counts, before = after.since(before), after
        tries = counts.committed + counts.conflicted
        rows.append(
            (
                name,
                debits,
                counts.committed,
                f"{debits / max(1, counts.committed):.1f}",
                counts.conflicted,
                f"{counts.conflicted / max(1, tries):.0%}",
            )
        )
    columns = ("case", "debits", "commits", "debits a commit", "conflicts", "of the attempts")
    table("What the cluster counted in one more run of each", columns, rows)


def _account(side: Side, accounts: int) -> None:
    """Compares what the ledger took and wrote with what was answered, and audits it."""
    with grpc.insecure_channel(side.addresses[-1]) as channel:
        credits = CreditServiceStub(channel)
        spent = 0
        for name in (HOT, *map(account_name, range(accounts))):
            request = pb.GetBalanceRequest(account_id=name)
            spent += credits.GetBalance(request, timeout=60).balance.spent
        audit = None
        for audit in LedgerServiceStub(channel).Audit(ledger_pb2.AuditRequest(), timeout=3600):
            if audit.HasField("difference"):
                sys.exit(f"the audit found a difference: {audit.difference}")
    entries = audit.entries - accounts - 1 if audit is not None and audit.done else -1
    if not spent == entries == side.made:
        sys.exit(f"{spent:,} spent, {entries:,} entries, {side.made:,} debits answered")
    print(
        f"\ncredit service: balances, entries and audit account for all {spent:,} debits of"
        f" {accounts + 1:,} accounts."
    )


if __name__ == "__main__":
    main()
