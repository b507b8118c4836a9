"""The auth service, served for real in the test's process."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from services.store.open import open_store
from services.store.port import Store
from tests.support.auth_service import AuthClient, Clock, running_auth_service

# A busy machine is no reason to fail; what fails is printed so that it can be tried again.
settings.register_profile("tollmesh", deadline=None, print_blob=True)
settings.load_profile("tollmesh")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Embedded; a test's parameter ``simulated`` asks for the engine that fails on purpose."""
    url = f"lmdb://{tmp_path}/store"
    if getattr(request, "param", "lmdb") == "simulated":
        url = f"simulated:?seed={random.randrange(2**32)}"
        print(url)  # noqa: T201 (shown when the test fails)
    store = await open_store(url)
    yield store
    await store.close()


@pytest.fixture
async def mesh(store: Store, clock: Clock) -> AsyncIterator[AuthClient]:
    async with running_auth_service(store, clock) as client:
        yield client
