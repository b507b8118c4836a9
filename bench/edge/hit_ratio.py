"""How often the cache has what is asked for: ``python -m bench.edge.hit_ratio``.

Seeded traces (bench/edge/trace.py) at a cache of a tenth of the objects' bytes: the edge's own
tiers beside LRU, SIEVE and a cache that knows the future. No network, no files; under a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.edge.caches import Cache, Disk, Lru, Offline, SecondMiss, Sieve
from bench.edge.report import Row, print_rows
from bench.edge.stage import Stage
from bench.edge.trace import OBJECTS, Trace, make_trace
from services.edge.cache.memory import MokaCache, bytes_weight

SEEDS = (1, 2, 3)
AT_LEAST = 45.0  # per cent of requests
MEMORY_SHARE = 1 / 40
"""Of the disk tier's bytes, as the defaults have it."""

STOP, HALF, ALWAYS = 1.0, 0.5, 0.0
"""How much of an object must be here for its fetch to go on when its reader has left."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trace came to, as shares."""

    by_objects: float
    by_bytes: float
    fetched: float
    """Bytes fetched from the chain, of those that readers took."""


Contender = Callable[[Trace], Cache]


CONTENDERS: dict[str, Contender] = {
    "edge: disk tier": lambda trace: Disk(trace.tenth),
    "edge: stored at the second miss": lambda trace: SecondMiss(Disk(trace.tenth), OBJECTS),
    "SIEVE": lambda trace: Sieve(trace.tenth),
    "LRU": lambda trace: Lru(trace.tenth),
    "offline, by bytes": lambda trace: Offline(trace.tenth, trace.requests, by_objects=False),
    "offline, by objects": lambda trace: Offline(trace.tenth, trace.requests, by_objects=True),
}


def main() -> None:
    """Prints hit ratios by objects and by bytes, and what the rule for lone fetches costs."""
    print_rows("Hit ratio at a tenth of the bytes; a round is a seed", asyncio.run(measure()))


async def rows(_: Stage) -> list[Row]:
    """The rows, for ``make bench-edge``; a round is a seed."""
    return await measure()


async def measure() -> list[Row]:
    """The rows."""
    traces = [make_trace(seed) for seed in SEEDS]
    found: dict[str, list[Outcome]] = {
        "edge: memory tier (moka)": [await _through_memory(trace) for trace in traces],
        "edge: memory and disk": [await _through_both(trace) for trace in traces],
    }
    for name, contender in CONTENDERS.items():
        found[name] = [await _run(trace, _asking(contender(trace)), ALWAYS) for trace in traces]
    found_rows = [row for name, outcomes in found.items() for row in _rows(name, outcomes)]
    for name, rule in (("goes on", ALWAYS), ("goes on from half", HALF), ("stops", STOP)):
        outcomes = [
            await _run(trace, _asking(Disk(trace.tenth)), rule, leaving=True) for trace in traces
        ]
        found_rows.append(_row(f"lone fetch {name}: hits", "% of requests", outcomes, 0))
        found_rows.append(_row(f"lone fetch {name}: fetched", "% of bytes read", outcomes, 2))
    return found_rows


def _rows(name: str, outcomes: list[Outcome]) -> list[Row]:
    aim = AT_LEAST if name == "edge: memory and disk" else None
    return [
        _row(name, "% of requests", outcomes, 0, aim),
        _row(name, "% of bytes", outcomes, 1),
    ]


def _row(
    name: str, of: str, outcomes: list[Outcome], part: int, at_least: float | None = None
) -> Row:
    values = [(each.by_objects, each.by_bytes, each.fetched)[part] for each in outcomes]
    return Row(name, of, [100 * value for value in values], at_least=at_least)


Ask = Callable[[int, int], Awaitable[bool]]
"""Asks for an object; whether it was there."""


def _asking(cache: Cache) -> tuple[Ask, Callable[[int, int], None]]:
    async def ask(key: int, size_bytes: int) -> bool:
        return cache.get(key, size_bytes)

    return ask, cache.put


async def _through_memory(trace: Trace) -> Outcome:
    memory = MokaCache(trace.tenth, lambda _, size_bytes: size_bytes)

    async def ask(key: int, size_bytes: int) -> bool:
        if await memory.get(key) is not None:
            return True
        await memory.set(key, size_bytes)
        return False

    return await _run(trace, (ask, lambda *_: None), ALWAYS)


async def _through_both(trace: Trace) -> Outcome:
    """As ``services.edge.delivery.Sources``: what memory has counts as used on disk, too."""
    disk = Disk(int(trace.tenth / (1 + MEMORY_SHARE)))
    memory = MokaCache(
        int(trace.tenth * MEMORY_SHARE / (1 + MEMORY_SHARE)),
        lambda key, size_bytes: size_bytes + bytes_weight(key, b""),
    )

    async def ask(key: int, size_bytes: int) -> bool:
        if await memory.get(key) is not None:
            disk.get(key, size_bytes)
            return True
        if not disk.get(key, size_bytes):
            return False
        if size_bytes <= 1024 * 1024:
            await memory.set(key, size_bytes)
        return True

    return await _run(trace, (ask, disk.put), ALWAYS)


async def _run(
    trace: Trace,
    cache: tuple[Ask, Callable[[int, int], None]],
    rule: float,
    *,
    leaving: bool = False,
) -> Outcome:
    """Plays a trace; with ``leaving``, readers leave as it says, and ``rule`` decides."""
    ask, put = cache
    hits = hit_bytes = asked_bytes = 0
    fetched = taken = 0.0
    for key, would_read in zip(trace.requests, trace.read, strict=True):
        size_bytes, read = trace.sizes[key], would_read if leaving else 1.0
        asked_bytes += size_bytes
        taken += read * size_bytes
        if await ask(key, size_bytes):
            hits += 1
            hit_bytes += size_bytes
        elif read >= rule:
            put(key, size_bytes)
            fetched += size_bytes
        else:
            fetched += read * size_bytes
    return Outcome(hits / len(trace.requests), hit_bytes / asked_bytes, fetched / taken)


if __name__ == "__main__":
    main()
