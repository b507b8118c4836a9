"""A real chain for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.anvil import Anvil, running_anvil


@pytest.fixture
async def anvil(tmp_path: Path) -> AsyncIterator[Anvil]:
    """Blocks come by ``mine`` alone; the safe block is 2, the finalized one 4 behind."""
    options = ("--no-mining", "--slots-in-an-epoch", "2", "--gas-limit", "300000000")
    async with running_anvil(tmp_path, *options) as chain:
        yield chain
