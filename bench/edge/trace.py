"""A seeded trace of requests: a Zipf of popular objects, and scans through all of them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import accumulate

OBJECTS = 20_000
REQUESTS = 150_000
EXPONENT = 0.8
"""Of the Zipf; what is published of traffic at the edge lies between 0.6 and 1."""
SCANNED = 0.2
"""The share of requests that belong to scans (crawlers, backups): each object once, in turn."""
SCAN_LENGTH = 2000
LEAVING = 0.3
"""The share of readers that leave amid an object, anywhere in it."""

_MEDIAN_BYTES, _SPREAD, _LARGEST_BYTES = 32 * 1024, 1.5, 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests for objects, by number."""

    requests: list[int]
    sizes: list[int]
    """Of each object, in bytes: log-normal."""
    read: list[float]
    """How much of the object each request's reader takes; 1 is all."""

    @property
    def tenth(self) -> int:
        """A tenth of all objects' bytes."""
        return sum(self.sizes) // 10


def make_trace(seed: int) -> Trace:
    """The trace of a seed; the same one each time."""
    chance = random.Random(seed)
    sizes = [_size(chance) for _ in range(OBJECTS)]
    by_rank = chance.sample(range(OBJECTS), OBJECTS)
    weights = list(accumulate((rank + 1) ** -EXPONENT for rank in range(OBJECTS)))
    popular = iter(chance.choices(by_rank, cum_weights=weights, k=REQUESTS))
    requests: list[int] = []
    scanned = left = 0
    # A scan goes on beside the others' requests, half and half.
    begins = SCANNED / (1 - 2 * SCANNED) / SCAN_LENGTH
    while len(requests) < REQUESTS:
        if left and chance.random() < 0.5:
            requests.append(scanned % OBJECTS)
            scanned, left = scanned + 1, left - 1
            continue
        requests.append(next(popular))
        if not left and chance.random() < begins:
            left = SCAN_LENGTH
    read = [chance.random() if chance.random() < LEAVING else 1.0 for _ in requests]
    return Trace(requests, sizes, read)


def _size(chance: random.Random) -> int:
    return min(_LARGEST_BYTES, 1 + int(_MEDIAN_BYTES * chance.lognormvariate(0, _SPREAD)))
