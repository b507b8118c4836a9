"""The store suite's fixtures: each test runs on every engine, whichever it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.store.port import Store
from tests.support.store_homes import ENGINES, SMALL_LOG, Home, open_home


@pytest.fixture(params=[*ENGINES, SMALL_LOG])
async def home(request: pytest.FixtureRequest, tmp_path: Path, seed: int) -> AsyncIterator[Home]:
    async with open_home(request.param, tmp_path, seed) as home:
        yield home


@pytest.fixture
async def store(home: Home) -> AsyncIterator[Store]:
    store = await home.open()
    yield store
    await store.close()
