"""Settings of the store's own tests."""

from __future__ import annotations

import pytest

from services.store.engines import lmdb
from tests.support.embedded_store import write_to


@pytest.fixture
def whole_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint goes on while a test copies the files: no crash leaves such a copy."""
    monkeypatch.setattr(lmdb, "write_to", write_to)
