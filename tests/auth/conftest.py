"""The auth service, served for real in the test's process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.store.open import open_store
from services.store.port import Store
from tests.support.auth_service import AuthClient, Clock, running_auth_service
from tests.support.seeds import chosen_seed


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Embedded; a test's parameter ``simulated`` asks for the engine that fails on purpose."""
    url = f"lmdb://{tmp_path}/store"
    if getattr(request, "param", "lmdb") == "simulated":
        url = f"simulated:?seed={chosen_seed()}"
    store = await open_store(url)
    yield store
    await store.close()


@pytest.fixture
async def mesh(store: Store, clock: Clock) -> AsyncIterator[AuthClient]:
    async with running_auth_service(store, clock) as client:
        yield client
