"""Options and fixtures of the whole suite."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from services.process import logs
from tests.support.cache_suite import INSTALLED
from tests.support.seeds import chosen_seed

# A busy machine is no reason to fail; what fails is printed so that it can be tried again.
settings.register_profile(
    "tollmesh", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tollmesh")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chaos-kills",
        type=int,
        default=5,
        help="how often the chaos test kills the credit service (make chaos: 50)",
    )
    parser.addoption(
        "--edge-kills",
        type=int,
        default=5,
        help="how often the chaos test kills an edge (make chaos-edge: 50)",
    )
    parser.addoption(
        "--outage-s",
        type=float,
        default=5.0,
        help="how long services behind an edge are down (make chaos-edge: 30)",
    )
    parser.addoption(
        "--http-suite",
        type=Path,
        default=INSTALLED,
        help="a copy of http-tests/cache-tests to run instead of the installed one",
    )
    parser.addoption("--http-test", default="", help="runs one test of that suite, and shows it")


def pytest_configure() -> None:
    """Logs as the processes do: the library's own default shows variables, and takes its time."""
    logs.configure("info", "json")


@pytest.fixture
def http_suite(request: pytest.FixtureRequest) -> Path:
    """Where the public suite for HTTP caches is."""
    suite: Path = request.config.getoption("--http-suite")
    return suite


@pytest.fixture
def http_test(request: pytest.FixtureRequest) -> str:
    """The test of it that is to be run alone; empty for all."""
    return str(request.config.getoption("--http-test"))


@pytest.fixture
def seed() -> int:
    """A fresh seed for each test, printed; the environment variable TEST_SEED repeats one."""
    return chosen_seed()


@pytest.fixture
def dice(seed: int) -> random.Random:
    """Chance, by that seed."""
    return random.Random(seed)
