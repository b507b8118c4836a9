"""Proves the ledger with new seeds: ``SOAK_SECONDS=300 python -m tests.support.soak``.

Turns: histories of a service that is killed, on each face, the ledger's chaos test, the tests
against the model. Meanwhile another process simulates. The first failure ends it with what repeats
it; else a summary is printed.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services.process.envoy import why_not
from tests.support.history_check import check
from tests.support.history_clients import record
from tests.support.simulation.run import command

CALLS = 150
MOST_KILLS = 3
OPERATIONS = 100_000
"""Of each simulation."""
FACES = ["grpcio"] if why_not() else ["grpcio", "envoy"]
SUITES = (
    "tests/conformance/test_ledger_chaos.py",
    "tests/proof/test_model.py",
    "tests/proof/test_state_machine.py",
)
PROFILE = "proof-soak"
"""Of the state machine: it runs longer than in ``make test``."""


def main() -> int:
    """Soaks; the exit status is 1 after a failure."""
    end = time.monotonic() + float(os.environ.get("SOAK_SECONDS", "300"))
    done: Counter[str] = Counter()
    with ThreadPoolExecutor(1) as aside:
        simulations = aside.submit(_simulations, end)
        while time.monotonic() < end and not simulations.done():
            seed = random.SystemRandom().randrange(2**32)
            done.update(_histories(seed))
            for suite in SUITES:
                if time.monotonic() < end:
                    _pytest(suite, seed)
                    done["runs of other suites"] += 1
        done.update(simulations.result())
    _say(", ".join(f"{count} {what}" for what, count in done.items()))
    return 0


def _histories(seed: int) -> dict[str, int]:
    kills = random.Random(seed).randint(1, MOST_KILLS)
    calls = 0
    for face in FACES:
        how = f"TEST_SEED={seed} (a history on {face} with {kills} kills)"
        _say(how)
        try:
            with tempfile.TemporaryDirectory() as directory:
                recording = record(Path(directory), seed, calls=CALLS, kills=kills, faces=[face])
                history = asyncio.run(recording)
            check(history)
        except Exception:
            _say(f"failed; to repeat it: {how}")
            raise
        calls += len(history.calls)
    return {"histories": len(FACES), "calls in them": calls, "kills": kills * len(FACES)}


def _simulations(end: float) -> dict[str, int]:
    """With new seeds until the time is up."""
    runs = 0
    while time.monotonic() < end:
        again = command(random.SystemRandom().randrange(2**32), OPERATIONS)
        _run(again, [sys.executable, *again.split()[1:]], {})
        runs += 1
    return {"simulations": runs, "operations in them": runs * OPERATIONS}


def _pytest(suite: str, seed: int) -> None:
    pytest = [sys.executable, "-m", "pytest", suite, "-x", "-q", "-m", "not fdb"]
    environment = {"TEST_SEED": str(seed), "HYPOTHESIS_PROFILE": PROFILE}
    told = " ".join(f"{name}={value}" for name, value in environment.items())
    _run(f"{told} python -m pytest {suite}", pytest, environment)


def _run(how: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs a command; says what repeats it, and all that it said if it fails."""
    _say(how)
    done = subprocess.run(
        arguments,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        _say(done.stdout.decode()[-10_000:])
        raise RuntimeError(f"failed; to repeat it: {how}")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 (a command's output)


if __name__ == "__main__":
    sys.exit(main())
