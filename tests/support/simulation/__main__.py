"""``python -m tests.support.simulation --seed N --operations M``: one run, and what it came to."""

from __future__ import annotations

import argparse
import random

from tests.support.simulation.run import command, simulate


def main() -> None:
    """Simulates; a violation ends it with an error."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.simulation")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument(
        "--whatever-happens", action="store_true", help="a fault that never happens is no failure"
    )
    asked = parser.parse_args()
    print(command(asked.seed, asked.operations), flush=True)  # noqa: T201 (a command's output)
    report = simulate(asked.seed, asked.operations, must_happen=not asked.whatever_happens)
    print(report)  # noqa: T201 (a command's output)


if __name__ == "__main__":
    main()
