"""The client library under load: one debit a call, many at once; and a stream of debits.

Prints what a debit costs each side in processor time, which other work on the machine disturbs less
than rates: from the two one sees which side is the slower.

Run: python -m bench.client [ROUNDS]
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tollmesh.client import AsyncCreditClient, AsyncDebitStream, Batching

from bench.http2_load import Outcome
from bench.load import DEBIT, GRANT, HOT, Load, Measured, Target, grants, processor_s
from bench.servers import FACES, LOAD_CORE, Servers
from services.cli.output import table

SECONDS = 0.5
IN_FLIGHT = 200
WINDOWS = (1, 2, 4)
Run = Callable[[AsyncCreditClient, int, float], Awaitable[Outcome]]


def debits_by_library(target: Target, in_flight: int, seconds: float) -> Measured:
    """Debits of the hot account by so many callers of one client."""
    return _measured(target, in_flight, seconds, one_a_call, Batching()).measured


async def one_a_call(client: AsyncCreditClient, in_flight: int, seconds: float) -> Outcome:
    """So many callers, each with one debit at a time."""
    latencies: list[float] = []
    began = time.perf_counter()

    async def caller() -> None:
        now = time.perf_counter()
        while now < began + seconds:
            before = now
            await client.debit(HOT, 1)
            now = time.perf_counter()
            latencies.append(now - before)

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return Outcome(len(latencies), time.perf_counter() - began, latencies)


async def streamed(client: AsyncCreditClient, in_flight: int, seconds: float) -> Outcome:
    """One task sends without a pause, another takes the outcomes; ``in_flight`` is the window."""
    began = time.perf_counter()

    async def send(stream: AsyncDebitStream) -> None:
        while time.perf_counter() < began + seconds:
            await stream.send(HOT, 1)
        stream.end()

    count = 0
    async with client.debit_stream(window=in_flight) as stream:
        sending = asyncio.create_task(send(stream))
        async for outcome in stream:
            outcome.result()
            count += 1
        await sending
    return Outcome(count, time.perf_counter() - began, [])


@dataclass(frozen=True)
class Sides:
    """One run, with the processor time of the client."""

    measured: Measured
    client_s: float

    @property
    def client_us(self) -> float:
        """For each debit, in microseconds."""
        return 1e6 * self.client_s / max(1, self.measured.outcome.calls)


def _measured(
    target: Target, in_flight: int, seconds: float, run: Run, batching: Batching
) -> Sides:
    async def once() -> Outcome:
        async with AsyncCreditClient(target.address, batching=batching) as client:
            return await run(client, in_flight, seconds)

    server_s, client_s = processor_s(target.pid), time.process_time()
    outcome = _runner().run(once())
    client_s = time.process_time() - client_s
    return Sides(Measured(outcome, processor_s(target.pid) - server_s), client_s)


@cache
def _runner() -> asyncio.Runner:
    """One event loop for all: grpc.aio complains of a second one in a process."""
    return asyncio.Runner()


def main(rounds: int) -> None:
    """Measures each way in turn, and prints the medians."""
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="tollmesh-bench-") as directory:
        home = Path(directory)
        servers = Servers(home)
        try:
            bare = asyncio.run(servers.bare("grpcio"))
            cases = _cases(servers, home)
            load = Load()
            found: dict[str, list[tuple[float, Sides]]] = {name: [] for name in cases}
            for _ in range(rounds):
                noop = bare.run(DEBIT, load.unary(0), IN_FLIGHT, SECONDS).rate
                for name, case in cases.items():
                    found[name].append((noop, case()))
        finally:
            asyncio.run(servers.stop())
    rows = [_row(name, runs) for name, runs in found.items()]
    columns = ("case", "of grpc.aio's no-op", "a second", "client CPU us", "server CPU us")
    table(f"{IN_FLIGHT} debits in flight, {rounds} rounds of {SECONDS} s", columns, rows)


def _cases(servers: Servers, home: Path) -> dict[str, Callable[[], Sides]]:
    cases: dict[str, Callable[[], Sides]] = {}
    for face in FACES:
        target = asyncio.run(servers.credits(face, home / face))
        target.all_of(GRANT, grants(0))
        for window in WINDOWS:
            cases[f"debit(), window {window}, {face}"] = _case(target, one_a_call, window)
        cases[f"debit_stream(), {face}"] = _case(target, streamed, 1)
    return cases


def _case(target: Target, run: Run, window: int) -> Callable[[], Sides]:
    return lambda: _measured(target, IN_FLIGHT, SECONDS, run, Batching(window=window))


def _row(name: str, runs: list[tuple[float, Sides]]) -> tuple[str | int, ...]:
    sides = [one for _, one in runs]
    return (
        name,
        f"{statistics.median(one.measured.rate / noop for noop, one in runs):.2f}",
        round(statistics.median(one.measured.rate for one in sides)),
        f"{statistics.median(one.client_us for one in sides):.1f}",
        f"{statistics.median(one.measured.processor_us for one in sides):.1f}",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
