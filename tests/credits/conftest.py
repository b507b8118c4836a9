"""A credit service on an LMDB store, over the wire, with a clock that the test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.store.open import open_store
from tests.support.credit_service import Account, Clock, CreditService


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def service(tmp_path: Path, clock: Clock) -> AsyncIterator[CreditService]:
    store = await open_store(f"lmdb://{tmp_path}/store")
    yield CreditService(store, clock)
    await store.close()


@pytest.fixture
async def alice(service: CreditService) -> AsyncIterator[Account]:
    """An account of the served service."""
    async with service.served() as stub:
        yield Account(stub)


@pytest.fixture
async def memory(clock: Clock) -> AsyncIterator[CreditService]:
    """A service in memory, for many calls."""
    store = await open_store("simulated:?faults=none")
    yield CreditService(store, clock)
    await store.close()


@pytest.fixture
def bob(memory: CreditService) -> Account:
    """An account of the service in memory, called without a wire."""
    return Account(memory.direct, "bob")
