"""Unary debits beside no-op calls on the same server, and batches; every debit durable.

One run, ratios first: machines are noisy, so each round measures the ceilings and the debits one
after the other, and the ratio of a round is what is quoted (the median of the rounds). The server
has one core, the load driver another. There are two ceilings: a bare call of grpc.aio, and a call
that is served as any is and does nothing. What the disk needs is measured too: at few calls in
flight it is what binds. At the end the ledger must account for every call.

Run: make bench [BENCH_ROUNDS=5] [BENCH_SECONDS=2]
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from tollmesh.auth.v1 import auth_pb2
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub

from bench.credit_server import NOOP, SERVED_NOOP
from bench.disk import Disk, measure
from bench.http2_load import Driver, Outcome
from services.cli.mesh.processes import Child, free_port, start, stop
from services.cli.output import table

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
IN_FLIGHT = (1, 32, 200)
ACCOUNTS = 1000
BATCH = 500
GRANT = 1 << 50
DEBIT = "/tollmesh.credits.v1.CreditService/Debit"
BATCH_DEBIT = "/tollmesh.credits.v1.CreditService/BatchDebit"


@dataclass
class Load:
    """Makes requests, each with an id of its own, and counts the debits in them."""

    number: Iterator[int] = field(default_factory=itertools.count)

    def debit(self, account: str) -> pb.DebitRequest:
        """One debit of one credit."""
        return pb.DebitRequest(request_id=f"b{next(self.number)}", account_id=account, amount=1)

    def hot(self) -> Iterator[bytes]:
        """Debits of one account."""
        while True:
            yield self.debit("hot").SerializeToString()

    def spread(self) -> Iterator[bytes]:
        """Debits of all accounts in turn."""
        for account in itertools.cycle(range(ACCOUNTS)):
            yield self.debit(f"a{account}").SerializeToString()

    def batches(self) -> Iterator[bytes]:
        """Batches of debits of one account."""
        while True:
            debits = [self.debit("hot") for _ in range(BATCH)]
            yield pb.BatchDebitRequest(debits=debits).SerializeToString()


@dataclass
class Measured:
    """One run of calls, and the processor time that it took the server."""

    outcome: Outcome
    processor_s: float

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.outcome.rate

    @property
    def processor_us(self) -> float:
        """Processor time for each call, all threads and the kernel's part, in microseconds."""
        return 1e6 * self.processor_s / self.outcome.calls


@dataclass
class Round:
    """What one round measured."""

    bare: Measured
    served: Measured
    hot: Measured
    spread: Measured


async def main() -> None:
    """Measures and prints."""
    os.sched_setaffinity(0, {1 % (os.cpu_count() or 1)})
    with tempfile.TemporaryDirectory(prefix="tollmesh-bench-") as directory:
        disk = await measure(Path(directory))
        address = f"127.0.0.1:{free_port()}"
        server = await _server(Path(directory), address)
        try:
            await asyncio.to_thread(_measure, Bench(address, server.process.pid, disk))
        finally:
            await stop([server])


async def _server(directory: Path, address: str) -> Child:
    (directory / "store").mkdir()
    environment = {
        "TOLLMESH_CREDITS_LISTEN": address,
        "TOLLMESH_CREDITS_STORE": f"lmdb://{directory}/store",
        "TOLLMESH_CREDITS_LOG_LEVEL": "info",
        "BENCH_CORE": "0",
    }
    command = [sys.executable, "-m", "bench.credit_server"]
    server = start("credits", command, directory, environment)
    await server.listening(address)
    return server


class Bench:
    """The driver and the server that it drives."""

    def __init__(self, address: str, pid: int, disk: Disk) -> None:
        self.address = address
        self.disk = disk
        self.load = Load()
        self._pid = pid
        self._driver = Driver(address)

    def run(self, method: str, messages: Iterator[bytes], in_flight: int) -> Measured:
        """Calls a method for SECONDS."""
        before = _processor_s(self._pid)
        outcome = self._driver.run(method, messages, in_flight=in_flight, seconds=SECONDS)
        return Measured(outcome, _processor_s(self._pid) - before)

    def round(self, in_flight: int) -> Round:
        """Both ceilings and both kinds of debits."""
        account = auth_pb2.GetAccountRequest(account_id="hot").SerializeToString()
        return Round(
            bare=self.run(NOOP, itertools.repeat(b""), in_flight),
            served=self.run(SERVED_NOOP, itertools.repeat(account), in_flight),
            hot=self.run(DEBIT, self.load.hot(), in_flight),
            spread=self.run(DEBIT, self.load.spread(), in_flight),
        )


def _measure(bench: Bench) -> None:
    names = ["hot", *(f"a{number}" for number in range(ACCOUNTS))]
    with grpc.insecure_channel(bench.address) as channel:
        credits = CreditServiceStub(channel)
        grants = [
            credits.Grant.future(
                pb.GrantRequest(request_id=f"g-{name}", account_id=name, amount=GRANT), timeout=60
            )
            for name in names
        ]
        for grant in grants:
            grant.result()
        debits = 0
        for in_flight in IN_FLIGHT:
            rounds = [bench.round(in_flight) for _ in range(ROUNDS)]
            debits += sum(kind.outcome.calls for one in rounds for kind in (one.hot, one.spread))
            _print_rounds(in_flight, rounds)
            _print_bound(in_flight, rounds, bench.disk)
        debits += _batches(bench).calls * BATCH
        spent = sum(_spent(credits, name) for name in names)
    if spent != debits:
        sys.exit(f"the ledger took {spent:,} debits, the load driver made {debits:,}")
    print(f"\nThe ledger accounts for all {debits:,} debits.")


def _batches(bench: Bench) -> Outcome:
    bare = bench.run(NOOP, itertools.repeat(b""), 32)
    done = bench.run(BATCH_DEBIT, bench.load.batches(), 2)
    row = (
        "BatchDebit, hot",
        f"{done.rate * BATCH / bare.rate:.1f}",
        round(done.rate * BATCH),
        f"{done.processor_us / BATCH:.1f}",
    )
    columns = ("call", "of bare no-ops", "debits/s", "CPU us a debit")
    table(f"Batches of {BATCH}, 2 in flight", columns, [row])
    return done.outcome


def _print_rounds(in_flight: int, rounds: list[Round]) -> None:
    kinds: dict[str, Callable[[Round], Measured]] = {
        "no-op, bare grpc.aio": lambda one: one.bare,
        "no-op, served as any call": lambda one: one.served,
        "Debit, one hot account": lambda one: one.hot,
        f"Debit, {ACCOUNTS:,} accounts": lambda one: one.spread,
    }
    rows = []
    for name, of in kinds.items():
        ratios = [of(one).rate / one.bare.rate for one in rounds]
        of_served = [of(one).rate / one.served.rate for one in rounds]
        outcomes = [of(one).outcome for one in rounds]
        rows.append(
            (
                name,
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
                f"{statistics.median(of_served):.2f}",
                round(statistics.median(one.rate for one in outcomes)),
                round(statistics.median(of(one).processor_us for one in rounds)),
                f"{statistics.median(one.percentile_ms(50) for one in outcomes):.2f}",
                f"{statistics.median(one.percentile_ms(99) for one in outcomes):.2f}",
            )
        )
    ratios_of = ("of bare", "rounds", "of served")
    columns = ("call", *ratios_of, "calls/s", "CPU us", "p50 ms", "p99 ms")
    table(f"{in_flight} in flight, {ROUNDS} rounds of {SECONDS:g} s", columns, rows)


def _print_bound(in_flight: int, rounds: list[Round], disk: Disk) -> None:
    """What binds: the disk when its bound is below the rate of the no-op."""
    low, high = disk.bounds(in_flight)
    allowed = f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
    ceiling = statistics.median(one.bare.rate for one in rounds)
    print(
        f"Commits allow {allowed} calls/s ({low / ceiling:.2f} of bare at the least): "
        f"{disk.commit_s * 1000:.1f} ms each, of which a sync {disk.sync_s * 1000:.1f} ms.\n"
    )


def _processor_s(pid: int) -> float:
    """What a process has used so far, from ``/proc/PID/stat`` (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _spent(credits: CreditServiceStub, account: str) -> int:
    request = pb.GetBalanceRequest(account_id=account)
    return credits.GetBalance(request, timeout=10).balance.spent


if __name__ == "__main__":
    asyncio.run(main())
