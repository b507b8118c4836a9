from __future__ import annotations

import random

import pytest

from tests.support.seeds import chosen_seed


@pytest.fixture
def rng() -> random.Random:
    """Fresh randomness; its seed is printed with a failure."""
    return random.Random(chosen_seed())
