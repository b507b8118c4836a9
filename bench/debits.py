"""Unary debits beside a no-op call on the same server, and batches; every debit durable.

One run, ratios first: machines are noisy, so each round measures the ceiling and the debits one
after the other, and the ratio of a round is what is quoted (the median of the rounds). The server
has one core, the load driver another. At the end the ledger must account for every call.

Run: make bench [BENCH_ROUNDS=5] [BENCH_SECONDS=2]
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub

from bench.credit_server import NOOP
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
class Round:
    """What one round measured."""

    noop: Outcome
    hot: Outcome
    spread: Outcome


async def main() -> None:
    """Measures and prints."""
    os.sched_setaffinity(0, {1 % (os.cpu_count() or 1)})
    with tempfile.TemporaryDirectory(prefix="tollmesh-bench-") as directory:
        address = f"127.0.0.1:{free_port()}"
        server = await _server(Path(directory), address)
        try:
            await asyncio.to_thread(_measure, address)
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


def _measure(address: str) -> None:
    names = ["hot", *(f"a{number}" for number in range(ACCOUNTS))]
    with grpc.insecure_channel(address) as channel:
        credits = CreditServiceStub(channel)
        for name in names:
            request = pb.GrantRequest(request_id=f"g-{name}", account_id=name, amount=GRANT)
            credits.Grant(request, timeout=10)
        driver, load, debits = Driver(address), Load(), 0
        for in_flight in IN_FLIGHT:
            rounds = [_round(driver, load, in_flight) for _ in range(ROUNDS)]
            debits += sum(round_.hot.calls + round_.spread.calls for round_ in rounds)
            _print_rounds(in_flight, rounds)
        batched = _batches(driver, load)
        debits += batched.calls * BATCH
        driver.close()
        spent = sum(_spent(credits, name) for name in names)
    if spent != debits:
        sys.exit(f"the ledger took {spent:,} debits, the load driver made {debits:,}")
    print(f"\nThe ledger accounts for all {debits:,} debits.")


def _round(driver: Driver, load: Load, in_flight: int) -> Round:
    noops = itertools.repeat(b"")
    return Round(
        driver.run(NOOP, noops, in_flight=in_flight, seconds=SECONDS),
        driver.run(DEBIT, load.hot(), in_flight=in_flight, seconds=SECONDS),
        driver.run(DEBIT, load.spread(), in_flight=in_flight, seconds=SECONDS),
    )


def _batches(driver: Driver, load: Load) -> Outcome:
    noop = driver.run(NOOP, itertools.repeat(b""), in_flight=32, seconds=SECONDS)
    done = driver.run(BATCH_DEBIT, load.batches(), in_flight=2, seconds=SECONDS)
    rows = [("BatchDebit, hot", f"{done.rate * BATCH / noop.rate:.1f}", round(done.rate * BATCH))]
    table(f"Batches of {BATCH}, 2 in flight", ("call", "of no-op calls", "debits/s"), rows)
    return done


def _print_rounds(in_flight: int, rounds: list[Round]) -> None:
    noops = [round_.noop for round_ in rounds]
    kinds = {
        "no-op (the ceiling)": noops,
        "Debit, one hot account": [round_.hot for round_ in rounds],
        f"Debit, {ACCOUNTS:,} accounts": [round_.spread for round_ in rounds],
    }
    rows = []
    for name, outcomes in kinds.items():
        ratios = [one.rate / noop.rate for one, noop in zip(outcomes, noops, strict=True)]
        rows.append(
            (
                name,
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
                round(statistics.median(one.rate for one in outcomes)),
                f"{statistics.median(one.percentile_ms(50) for one in outcomes):.2f}",
                f"{statistics.median(one.percentile_ms(99) for one in outcomes):.2f}",
            )
        )
    columns = ("call", "of the ceiling", "rounds", "calls/s", "p50 ms", "p99 ms")
    table(f"{in_flight} in flight, {ROUNDS} rounds of {SECONDS:g} s", columns, rows)


def _spent(credits: CreditServiceStub, account: str) -> int:
    request = pb.GetBalanceRequest(account_id=account)
    return credits.GetBalance(request, timeout=10).balance.spent


if __name__ == "__main__":
    asyncio.run(main())
