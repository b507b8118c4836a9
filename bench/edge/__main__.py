"""Runs every row, in one run; exits 0 whatever the figures are.

Run: make bench-edge, or python -m bench.edge [--rounds 5] [--seconds 2] [MODULE ...]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from importlib import import_module
from pathlib import Path

from bench.edge.report import Row, print_rows
from bench.edge.stage import Stage
from bench.servers import LOAD_CORE

MODULES = ("hits", "cold", "readers", "accel", "envoy", "hit_ratio")
"""Each has ``async def rows(stage) -> list[Row]``; what it starts is stopped behind it."""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one run of one case")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(MODULES))
    options = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    rows: list[Row] = []
    started = time.monotonic()
    for name in options.modules or MODULES:
        rows += asyncio.run(_rows(name, options.rounds, options.seconds, options.connections))
    minutes = (time.monotonic() - started) / 60
    terms = f"{options.rounds} rounds of {options.seconds:g} s, {options.connections} connections"
    print_rows(f"The edge: medians of {terms}; {minutes:.1f} min in all", rows)


async def _rows(name: str, rounds: int, seconds: float, connections: int) -> list[Row]:
    module = import_module(f"bench.edge.{name}")
    with tempfile.TemporaryDirectory(prefix="tollmesh-bench-") as directory:
        stage = Stage(Path(directory), rounds, seconds, connections)
        try:
            found: list[Row] = await module.rows(stage)
        finally:
            await stage.stop()
    return found


if __name__ == "__main__":
    main()
