"""SIEVE: which key is forgotten next, against a model that follows the paper line by line."""

from __future__ import annotations

import random

import pytest

from services.edge.cache.sieve import Sieve


class _Model:
    """A list, oldest first, marks, and the position of the hand."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.used: set[str] = set()
        self.hand = 0

    def victim(self, spared: set[str]) -> str | None:
        for _ in range(2 * len(self.keys)):
            key = self.keys[self.hand]
            if key in self.used:
                self.used.discard(key)
            elif key not in spared:
                return key
            self.hand = (self.hand + 1) % len(self.keys)
        return None

    def discard(self, key: str) -> None:
        if key in self.keys:
            index = self.keys.index(key)
            self.keys.remove(key)
            self.used.discard(key)
            if index < self.hand:
                self.hand -= 1
            if self.hand == len(self.keys):
                self.hand = 0


@pytest.mark.parametrize("seed", range(20))
def test_it_forgets_what_the_model_forgets(seed: int) -> None:
    rng = random.Random(seed)
    sieve, model, spared = Sieve(), _Model(), set[str]()
    for step in range(600):
        action = rng.random()
        if action < 0.4 or not model.keys:
            key = f"key-{step}"
            sieve.add(key)
            model.keys.append(key)
        elif action < 0.7:
            key = rng.choice(model.keys)
            sieve.use(key)
            model.used.add(key)
        elif action < 0.75:
            key = rng.choice(model.keys)
            spared ^= {key}
        elif action < 0.8:
            key = rng.choice(model.keys)
            sieve.discard(key)
            model.discard(key)
        else:
            expected = model.victim(spared)
            assert sieve.victim(spared.__contains__) == expected, f"seed {seed}, step {step}"
            if expected is not None:
                sieve.discard(expected)
                model.discard(expected)
        assert len(sieve) == len(model.keys)


def test_nothing_is_forgotten_when_all_is_spared() -> None:
    sieve = Sieve()
    assert sieve.victim(lambda _: False) is None
    sieve.add("a")
    sieve.use("a")
    assert sieve.victim(lambda _: True) is None
    assert sieve.victim(lambda _: False) == "a"


def test_what_was_used_outlives_a_scan() -> None:
    sieve = Sieve()
    for key in ("popular", "a", "b"):
        sieve.add(key)
    for number in range(10):
        sieve.use("popular")
        victim = sieve.victim(lambda _: False)
        assert victim is not None
        assert victim != "popular"
        sieve.discard(victim)
        sieve.add(f"scanned-{number}")
