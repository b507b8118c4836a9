"""What a unary call costs the server in processor time, on each face, stage by stage.

A server's rate depends on what else the machine does; the processor time that a call takes it
hardly does. So this is the tool for small gains: a gain of a microsecond shows in a few rounds.

Run: python -m bench.face_cost [--rounds 3] [--seconds 1.5] [--in-flight 32 200] [CASE ...]

Cases (all, when none is named): ``bare``, ``noop`` and ``debit``, behind ``envoy:`` or ``grpcio:``.
``python`` is what the event loop's thread takes of a call, ``others`` are the threads besides.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from bench.load import DEBIT, GRANT, Load, Target, grants
from bench.servers import FACES, LOAD_CORE, Servers
from services.cli.output import table

STAGES = ("bare", "noop", "debit")
WARM_UP_CALLS = 2000


def main() -> None:
    """Prints a line for each case and number of calls in flight."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[32, 200])
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    names = options.cases or [f"{face}:{stage}" for face in FACES for stage in STAGES]
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="tollmesh-bench-") as directory:
        servers = Servers(Path(directory))
        try:
            targets = {name: asyncio.run(_started(servers, name)) for name in names}
            _measure(targets, options.rounds, options.seconds, options.in_flight)
        finally:
            asyncio.run(servers.stop())


async def _started(servers: Servers, name: str) -> Target:
    face, _, stage = name.partition(":")
    if stage == "bare":
        return await servers.bare(face)
    if stage == "noop":
        return await servers.noop(face)
    return await servers.credits(face, servers.home / face)


def _measure(targets: dict[str, Target], rounds: int, seconds: float, flights: list[int]) -> None:
    load = Load()
    for name, target in targets.items():
        if name.endswith("debit"):
            target.all_of(GRANT, grants(0))
        target.all_of(DEBIT, (next(load.unary(0)) for _ in range(WARM_UP_CALLS)))
    for in_flight in flights:
        rows = defaultdict(list)
        for _ in range(rounds):
            for name, target in targets.items():
                before = _threads_s(target.pid)
                measured = target.run(DEBIT, load.unary(0), in_flight, seconds)
                after = _threads_s(target.pid)
                calls = measured.outcome.calls
                spent = {thread: after[thread] - before.get(thread, 0) for thread in after}
                busiest = max(spent.values())
                total = sum(spent.values())
                rows[name].append(
                    (measured.rate, *(1e6 * s / calls for s in (total, busiest, total - busiest)))
                )
        table(
            f"{in_flight} in flight, median of {rounds} rounds of {seconds:g} s",
            ("case", "a second", "CPU us a call", "lowest", "busiest thread", "others"),
            [_row(name, found) for name, found in rows.items()],
        )


def _row(name: str, found: list[tuple[float, ...]]) -> tuple[object, ...]:
    rate, total, busiest, others = map(statistics.median, zip(*found, strict=True))
    lowest = min(one[1] for one in found)
    return name, round(rate), f"{total:.1f}", f"{lowest:.1f}", f"{busiest:.1f}", f"{others:.1f}"


def _threads_s(pid: int) -> dict[str, float]:
    """The processor time of each thread so far, from ``schedstat`` of proc(5), in nanoseconds."""
    return {
        task.name: int((task / "schedstat").read_text().split()[0]) / 1e9
        for task in Path(f"/proc/{pid}/task").iterdir()
    }


if __name__ == "__main__":
    main()
