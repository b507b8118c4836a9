"""Options and fixtures of the whole suite."""

from __future__ import annotations

import random

import pytest

from services.process import logs
from tests.support.seeds import chosen_seed


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chaos-kills",
        type=int,
        default=5,
        help="how often the chaos test kills the credit service (make chaos: 50)",
    )


def pytest_configure() -> None:
    """Logs as the processes do: the library's own default shows variables, and takes its time."""
    logs.configure("info", "json")


@pytest.fixture
def seed() -> int:
    """A fresh seed for each test, printed; the environment variable TEST_SEED repeats one."""
    return chosen_seed()


@pytest.fixture
def dice(seed: int) -> random.Random:
    """Chance, by that seed."""
    return random.Random(seed)
