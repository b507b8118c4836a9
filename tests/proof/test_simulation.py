"""Seeded simulations: every history is explained, every fault happens, planted bugs are found."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.history_check import Violation
from tests.support.simulation.planted import PLANTED, Planted
from tests.support.simulation.run import command, simulate

OPERATIONS = 10_000
FEW = 1_000
ENOUGH = 4_000
"""Operations within which a planted bug is found."""


def test_two_ledgers_on_one_failing_cluster_do_what_the_model_says(seed: int) -> None:
    print(command(seed, OPERATIONS))  # noqa: T201 (shown with a failure)
    print(simulate(seed, OPERATIONS))  # noqa: T201 (shown with -s)


def test_a_seed_decides_everything(seed: int) -> None:
    traces = {_told_by_a_process(seed, hash_seed) for hash_seed in ("1", "2")}
    assert len(traces) == 1, traces


def _told_by_a_process(seed: int, hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, *command(seed, FEW).split()[1:], "--whatever-happens"],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_bug_is_found(seed: int, planted: Planted) -> None:
    with planted(), pytest.raises(Violation) as found:
        simulate(seed, ENOUGH, must_happen=False)
    print(str(found.value)[:300])  # noqa: T201 (what it was)
