"""Which key the disk tier forgets next, against a model that looks at all of them."""

from __future__ import annotations

import random
from pathlib import Path

from bench.edge.caches import Disk
from services.edge.cache.catalog import Catalog
from services.edge.cache.disk import DiskCache
from services.edge.cache.order import ROUND_TRIP_BYTES, WorthOrder
from services.edge.objects import ObjectInfo

EIGHTH = 1 / 8


class _Model:
    """What each key is worth, by the formula; the first of the least goes."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.uses: dict[str, float] = {}
        self.worth: dict[str, float] = {}
        self.ground = 0.0

    def add(self, key: str, size_bytes: int) -> None:
        self.sizes[key], self.uses[key] = size_bytes, EIGHTH
        self._weigh(key)

    def use(self, key: str) -> None:
        self.uses[key] += 1
        self._weigh(key)

    def _weigh(self, key: str) -> None:
        rate = ROUND_TRIP_BYTES / max(self.sizes[key], 4096) + 1
        self.worth[key] = self.ground + self.uses[key] * rate

    def discard(self, key: str) -> None:
        for known in (self.sizes, self.uses, self.worth):
            known.pop(key, None)

    def least(self) -> float:
        return min(self.worth.values())


def test_it_forgets_what_is_worth_least(dice: random.Random) -> None:
    order, model = WorthOrder(), _Model()
    for step in range(5000):
        action = dice.random()
        if action < 0.4 or not model.sizes:
            size_bytes = dice.choice((1, 5000, 70_000, 10_000_000))
            order.add(f"key-{step}", size_bytes)
            model.add(f"key-{step}", size_bytes)
        elif action < 0.7:
            key = dice.choice(list(model.sizes))
            order.use(key)
            model.use(key)
        elif action < 0.75:
            key = dice.choice([*model.sizes, "absent"])
            order.discard(key)
            model.discard(key)
        else:
            victim = order.victim(lambda _: False)
            assert victim is not None
            assert model.worth[victim] == model.least()
            model.ground = model.least()
            order.discard(victim)
            model.discard(victim)
        assert len(order) == len(model.sizes)


def test_nothing_is_forgotten_when_all_is_spared() -> None:
    order = WorthOrder()
    assert order.victim(lambda _: False) is None
    order.add("a", 1)
    order.use("a")
    assert order.victim(lambda _: True) is None
    assert order.victim(lambda _: False) == "a"


def test_what_is_spared_is_skipped_and_goes_when_it_is_spared_no_longer() -> None:
    order = WorthOrder()
    for key in ("a", "b", "c"):
        order.add(key, 1000)
    assert order.victim({"a", "b"}.__contains__) == "c"
    order.discard("c")
    assert {order.victim(lambda _: False)} <= {"a", "b"}


def test_what_was_used_outlives_a_scan() -> None:
    order = WorthOrder()
    for key in ("popular", "a", "b"):
        order.add(key, 1000)
    for number in range(1000):
        order.use("popular")
        victim = order.victim(lambda _: False)
        assert victim is not None
        assert victim != "popular"
        order.discard(victim)
        order.add(f"scanned-{number}", 1000)


def test_what_was_popular_once_goes_when_others_are_used() -> None:
    order = WorthOrder()
    order.add("old", 1000)
    for _ in range(20):
        order.use("old")
    for number in range(1000):
        order.add(f"new-{number}", 1000)
        order.use(f"new-{number}")
        victim = order.victim(lambda _: False)
        assert victim is not None
        order.discard(victim)
        if victim == "old":
            return
    raise AssertionError("it stays for ever")


def test_of_two_used_alike_the_larger_goes() -> None:
    order = WorthOrder()
    order.add("small", 10_000)
    order.add("large", 1_000_000)
    for key in ("small", "large"):
        order.use(key)
    assert order.victim(lambda _: False) == "large"


async def test_the_disk_tier_forgets_as_the_benchmark_says(
    tmp_path: Path, dice: random.Random
) -> None:
    """What bench/edge/hit_ratio.py measures is this tier's own policy.

    Nearly hit for hit: what a thread still holds for a moment is spared here, and only here.
    """
    sizes = [dice.randrange(100, 20_000) for _ in range(200)]
    popularity = [1 / (rank + 1) for rank in range(len(sizes))]
    max_bytes = sum(sizes) // 10
    catalog = Catalog(tmp_path / "catalog.sqlite3")
    disk = DiskCache(tmp_path, catalog, max_bytes=max_bytes, max_objects=1000)
    await disk.open()
    measured = Disk(max_bytes)
    hits = expected = 0
    for number in dice.choices(range(len(sizes)), weights=popularity, k=1500):
        if measured.get(number, sizes[number]):
            expected += 1
        else:
            measured.put(number, sizes[number])
        if await disk.mapping(str(number)) is not None:
            hits += 1
            continue
        partial = await disk.begin(ObjectInfo(str(number), sizes[number], "", ""))
        assert partial is not None
        await disk.append(partial, bytes(sizes[number]))
        await disk.keep(partial, ())
        del partial  # what is held is not forgotten
    await disk.close()
    assert abs(hits - expected) <= 1500 // 50
