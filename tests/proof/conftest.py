"""Seeds, engines, and how long state machines run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.store_homes import ENGINES, Home, open_home

_LONG = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

# HYPOTHESIS_PROFILE chooses. A busy machine is no reason to fail, and no example is kept: a run
# depends on its seed alone.
settings.register_profile(
    "proof",
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=_LONG,
)
settings.register_profile(
    "proof-soak", settings.get_profile("proof"), max_examples=60, stateful_step_count=120
)


@pytest.fixture(params=ENGINES)
async def home(request: pytest.FixtureRequest, tmp_path: Path, seed: int) -> AsyncIterator[Home]:
    async with open_home(request.param, tmp_path, seed) as home:
        yield home
