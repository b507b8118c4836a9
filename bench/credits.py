"""The credit service beside what it could be at best, and beside what else one could use.

One run, ratios first: machines are noisy, so each round measures the ceilings, the debits and the
peers one after the other, and the ratio of a round is what is quoted (the median of the rounds).
Each server has one core, the load driver the other; every debit is a new one, and durable before it
is answered. At the end the ledger must account for every debit.

Run: make bench-credits [BENCH_ROUNDS=5] [BENCH_SECONDS=1.5] [BENCH_ENTRIES=1000000]
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub

from bench import disk
from bench.client import debits_by_library
from bench.growth import measure_growth
from bench.load import (
    BATCH_DEBIT,
    DEBIT,
    GRANT,
    HOT,
    Load,
    Measured,
    Target,
    account_name,
    grants,
)
from bench.peers import databases
from bench.servers import EVERY_CORE, FACES, LOAD_CORE, ONE_CORE, Servers
from services.cli.output import table

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "1.5"))
ENTRIES = int(os.environ.get("BENCH_ENTRIES", "1000000"))
IN_FLIGHT = (1, 32, 200)
SPREAD = (1_000, 100_000)
BATCH = 500
POOLS = (4, 16, 48)

CEILING = "no-op, grpc.aio alone"
Case = Callable[[int], Measured]
"""Measures once, with so many calls in flight."""


@dataclass
class Bench:
    """What is measured, and the debits that the ledger must have in the end."""

    servers: Servers
    credits: dict[str, Target] = field(default_factory=dict)
    load: Load = field(default_factory=Load)
    made: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FACES, 0))

    def unary(self, face: str, accounts: int) -> Case:
        """Unary debits of the service."""

        def case(in_flight: int) -> Measured:
            target, messages = self.credits[face], self.load.unary(accounts)
            return self._count(face, target.run(DEBIT, messages, in_flight, SECONDS))

        return case

    def library(self, face: str) -> Case:
        """One debit a call by the client library."""

        def case(in_flight: int) -> Measured:
            measured = debits_by_library(self.credits[face], in_flight, SECONDS)
            return self._count(face, measured)

        return case

    def batches(self, face: str) -> Case:
        """Batches of debits of the hot account, two at once."""

        def case(_: int) -> Measured:
            target, messages = self.credits[face], self.load.batches(0, BATCH)
            return self._count(face, target.run(BATCH_DEBIT, messages, 2, SECONDS, BATCH))

        return case

    def stream(self, face: str, size: int) -> Case:
        """One stream with so many debits a message."""

        def case(in_flight: int) -> Measured:
            target, messages = self.credits[face], self.load.batches(0, size)
            window = in_flight * size
            return self._count(face, target.stream(messages, size, window, SECONDS))

        return case

    def _count(self, face: str, measured: Measured) -> Measured:
        self.made[face] += measured.outcome.calls * measured.each
        return measured


def noop(target: Target, load: Load) -> Case:
    """A Debit that does nothing."""
    return lambda in_flight: target.run(DEBIT, load.unary(0), in_flight, SECONDS)


def main() -> None:
    """Measures and prints."""
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="tollmesh-bench-") as directory:
        home = Path(directory)
        home.chmod(0o755)  # a database of another user has its files in it
        servers = Servers(home)
        try:
            print(asyncio.run(disk.measure(home)))
            _measure(Bench(servers), home)
            measure_growth(servers, home / "growth", ENTRIES, ROUNDS, SECONDS)
        finally:
            asyncio.run(servers.stop())


def _measure(bench: Bench, home: Path) -> None:
    cases: dict[str, Case] = {}
    for face in FACES:
        bare = asyncio.run(bench.servers.bare(face))
        name = CEILING if face == "grpcio" else "no-op, bare ASGI on pyvoy"
        cases[name] = noop(bare, bench.load)
        cases[f"no-op, {face} face"] = noop(asyncio.run(bench.servers.noop(face)), bench.load)
        bench.credits[face] = asyncio.run(bench.servers.credits(face, home / face))
        bench.credits[face].all_of(GRANT, grants(SPREAD[-1]))
        cases[f"Debit, hot, {face}"] = bench.unary(face, 0)
        for accounts in SPREAD:
            cases[f"Debit, {accounts:,} accounts, {face}"] = bench.unary(face, accounts)
        cases[f"client library, hot, {face}"] = bench.library(face)
    cases |= _peers(bench, home)
    for in_flight in IN_FLIGHT:
        _print(f"{in_flight} in flight", _rounds(cases, in_flight))
    many: dict[str, Case] = {CEILING: lambda _: cases[CEILING](32)}
    for face in FACES:
        many[f"BatchDebit of {BATCH}, 2 at once, {face}"] = bench.batches(face)
        many[f"StreamDebits, 100 a message, {face}"] = bench.stream(face, 100)
        many[f"StreamDebits, 1 a message, {face}"] = bench.stream(face, 1)
    _print("Many debits a call (streams: 20 messages unanswered)", _rounds(many, 20))
    _account(bench)


def _peers(bench: Bench, home: Path) -> dict[str, Case]:
    """Debits over PostgreSQL and Redis, where they are installed, on the face that is faster."""
    cases: dict[str, Case] = {}
    kinds = (
        ("PostgreSQL", databases.postgres_missing(), databases.start_postgres),
        ("Redis", databases.redis_missing(), databases.start_redis),
    )
    for name, missing, start in kinds:
        if missing is not None:
            print(f"{missing}; it is not in the tables below.")
            continue
        for place, prefix in (("one core", ONE_CORE), ("every core", EVERY_CORE)):
            child, url = asyncio.run(start(home, prefix))
            bench.servers.children.append(child)
            target = _tuned(bench, name.lower().removesuffix("ql"), url, place)
            cases[f"{name} on {place}, hot"] = noop(target, bench.load)
    return cases


def _tuned(bench: Bench, kind: str, url: str, place: str) -> Target:
    """The peer with the size of its connection pool that serves 32 in flight best."""
    module = {"postgres": "bench.peers.postgres", "redis": "bench.peers.redis"}[kind]
    rates: dict[int, float] = {}
    for size in POOLS:
        target = asyncio.run(bench.servers.peer(module, "envoy", _peer_settings(kind, url, size)))
        target.all_of(GRANT, grants(0))
        rates[size] = target.run(DEBIT, bench.load.unary(0), 32, SECONDS).rate
        asyncio.run(bench.servers.end(target))
    best = max(rates, key=lambda size: rates[size])
    tried = ", ".join(f"{size}: {rate:,.0f}/s" for size, rate in rates.items())
    print(f"{kind} on {place}: {best} connections (tried {tried}).")
    return asyncio.run(bench.servers.peer(module, "envoy", _peer_settings(kind, url, best)))


def _peer_settings(kind: str, url: str, size: int) -> dict[str, str]:
    return {f"BENCH_{kind.upper()}_URL": url, "BENCH_POOL": str(size)}


def _rounds(cases: dict[str, Case], in_flight: int) -> list[dict[str, Measured]]:
    return [{name: case(in_flight) for name, case in cases.items()} for _ in range(ROUNDS)]


def _print(title: str, rounds: list[dict[str, Measured]]) -> None:
    rows = []
    for name in rounds[0]:
        ratios = [one[name].rate / one[CEILING].rate for one in rounds]
        own = [_of_own_noop(one, name) for one in rounds]
        measured = [one[name] for one in rounds]
        rows.append(
            (
                name,
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
                "" if None in own else f"{statistics.median(o for o in own if o is not None):.2f}",
                round(statistics.median(one.rate for one in measured)),
                round(statistics.median(one.processor_us for one in measured)),
                *_latencies(measured),
            )
        )
    columns = ("case", "of grpc.aio", "rounds", "of face's no-op", "a second", "CPU us")
    table(f"{title}, {ROUNDS} rounds of {SECONDS:g} s", (*columns, "p50 ms", "p99 ms"), rows)


def _of_own_noop(one: dict[str, Measured], name: str) -> float | None:
    face = name.rpartition(" ")[2]
    own = one.get(f"no-op, {face} face")
    return None if own is None else one[name].rate / own.rate


def _latencies(measured: list[Measured]) -> tuple[str, str]:
    if not measured[0].outcome.latencies_s:
        return "", ""
    p50, p99 = (
        statistics.median(one.outcome.percentile_ms(percent) for one in measured)
        for percent in (50, 99)
    )
    return f"{p50:.2f}", f"{p99:.2f}"


def _account(bench: Bench) -> None:
    """Compares what the ledgers took with what was sent."""
    for face, target in bench.credits.items():
        spent = 0
        with grpc.insecure_channel(target.address) as channel:
            credits = CreditServiceStub(channel)
            names = itertools.chain([HOT], map(account_name, range(SPREAD[-1])))
            while some := list(itertools.islice(names, 500)):
                calls = [
                    credits.GetBalance.future(pb.GetBalanceRequest(account_id=name), timeout=60)
                    for name in some
                ]
                spent += sum(call.result().balance.spent for call in calls)
        if spent != bench.made[face]:
            sys.exit(f"{face}: the ledger took {spent:,} debits, {bench.made[face]:,} were made")
        print(f"\n{face}: the ledger accounts for all {spent:,} debits.")


if __name__ == "__main__":
    main()
