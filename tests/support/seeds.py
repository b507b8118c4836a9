"""Seeds of randomised tests: a new one each time, or the one of a run that failed."""

from __future__ import annotations

import os
import random

VARIABLE = "TEST_SEED"


def chosen_seed() -> int:
    """A seed; printed, which pytest shows with a failure, as what has the same run again."""
    seed = int(os.environ.get(VARIABLE) or random.SystemRandom().randrange(2**32))
    print(f"{VARIABLE}={seed}")  # noqa: T201 (shown with a failure)
    return seed
