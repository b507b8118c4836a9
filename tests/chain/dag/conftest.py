from __future__ import annotations

import random
import secrets

import pytest


@pytest.fixture
def rng() -> random.Random:
    """Fresh randomness; its seed is printed with a failure."""
    seed = secrets.randbits(32)
    print(f"seed of this test: {seed}")  # noqa: T201 (pytest shows it with a failure)
    return random.Random(seed)
