"""Proves the ledger with new seeds: ``SOAK_SECONDS=300 python -m tests.support.soak``.

Turns: a history of a service that is killed, the ledger's chaos test, the tests against the model.
The first failure ends it with the seed to repeat; else a summary is printed.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.history_check import check
from tests.support.history_clients import record

CALLS = 150
MOST_KILLS = 3
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
    runs = calls = kills = suites = 0
    while time.monotonic() < end:
        seed = random.SystemRandom().randrange(2**32)
        _say(f"TEST_SEED={seed}")
        more = random.Random(seed).randint(1, MOST_KILLS)
        try:
            calls += _history(seed, more)
            runs, kills = runs + 1, kills + more
            for suite in SUITES:
                if time.monotonic() < end:
                    _pytest(suite, seed)
                    suites += 1
        except Exception:
            _say(f"failed; to repeat it: TEST_SEED={seed} (kills: {more})")
            raise
    _say(f"{runs} histories of {calls} operations, {kills} kills, {suites} runs of other suites")
    return 0


def _history(seed: int, kills: int) -> int:
    with tempfile.TemporaryDirectory() as directory:
        history = asyncio.run(record(Path(directory), seed, calls=CALLS, kills=kills))
    check(history)
    return len(history.calls)


def _pytest(suite: str, seed: int) -> None:
    command = [sys.executable, "-m", "pytest", suite, "-x", "-q", "-m", "not fdb"]
    environment = os.environ | {"TEST_SEED": str(seed), "HYPOTHESIS_PROFILE": PROFILE}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        _say(done.stdout.decode()[-10_000:])
        raise RuntimeError(f"{suite} failed with TEST_SEED={seed} HYPOTHESIS_PROFILE={PROFILE}")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 (a command's output)


if __name__ == "__main__":
    sys.exit(main())
