"""Settings of the store's own tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

from services.store.engines import lmdb
from tests.support.embedded_store import write_to

# A busy machine is no reason to fail; what fails is printed so that it can be tried again.
settings.register_profile("tollmesh", deadline=None, print_blob=True)
settings.load_profile("tollmesh")


@pytest.fixture
def whole_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint goes on while a test copies the files: no crash leaves such a copy."""
    monkeypatch.setattr(lmdb, "write_to", write_to)
