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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    with _simulations() as simulations:
        while time.monotonic() < end:
            simulations.go_on()
            seed = random.SystemRandom().randrange(2**32)
            done.update(_histories(seed))
            for suite in SUITES:
                if time.monotonic() < end:
                    _pytest(suite, seed)
                    done["runs of other suites"] += 1
        simulations.finish()
    done["simulations"] = simulations.runs
    done["operations in them"] = simulations.runs * OPERATIONS
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


class _Simulations:
    """One after the other, each in a process of its own, beside everything else."""

    def __init__(self, output: Path) -> None:
        self.runs = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._output = output
        self._again = ""

    def go_on(self) -> None:
        """Starts one with a new seed unless one is running; raises if that has failed."""
        if self.process is not None and self.process.poll() is None:
            return
        self.finish()
        self._again = command(random.SystemRandom().randrange(2**32), OPERATIONS)
        _say(self._again)
        with self._output.open("wb") as output:
            arguments = [sys.executable, *self._again.split()[1:]]
            self.process = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT)

    def finish(self) -> None:
        """Waits for the one that is running; raises if it fails."""
        if self.process is not None:
            failed = self.process.wait()
            _say(self._output.read_text()[-10_000:])
            if failed:
                raise RuntimeError(f"failed; to repeat it: {self._again}")
            self.runs += 1


@contextmanager
def _simulations() -> Iterator[_Simulations]:
    with tempfile.TemporaryDirectory() as directory:
        simulations = _Simulations(Path(directory) / "output")
        try:
            yield simulations
        finally:
            if simulations.process is not None:
                simulations.process.kill()
                simulations.process.wait()


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
