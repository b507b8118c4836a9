"""A map that does simply what a transaction must do, and random steps to compare the two."""

from __future__ import annotations

import random
from collections.abc import Sequence

from services.store.layer import add_to_counter
from services.store.port import ReadTransaction, Transaction

Step = tuple[object, ...]
_KEYS = [bytes([first, second]) for first in b"abc" for second in b"\x00az\xff"]


class Model:
    """A sorted map: the whole truth about a store, if operations ran one after another."""

    def __init__(self) -> None:
        self._pairs: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self._pairs.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._pairs.get(key) for key in keys]

    def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        pairs = sorted(
            ((key, value) for key, value in self._pairs.items() if begin <= key < end),
            reverse=reverse,
        )
        return pairs[:limit] if limit else pairs

    def set(self, key: bytes, value: bytes) -> None:
        self._pairs[key] = value

    def clear(self, key: bytes) -> None:
        self._pairs.pop(key, None)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        for key, _ in self.range(begin, end):
            del self._pairs[key]

    def add(self, key: bytes, delta: int) -> None:
        self._pairs[key] = add_to_counter(self._pairs.get(key), delta)

    def append(self, prefix: bytes, value: bytes) -> None:  # noqa: ARG002 (the port's signature)
        raise AssertionError("random steps append nothing")


def random_steps(dice: random.Random, most: int = 8) -> list[Step]:
    """What one operation does: calls of a transaction's methods on a few keys."""
    steps: list[Step] = []
    for _ in range(dice.randint(1, most)):
        key, begin, end = dice.choice(_KEYS), dice.choice(_KEYS), dice.choice(_KEYS)
        steps.append(
            dice.choice(
                [
                    ("get", key),
                    ("get_many", [key, begin, end]),
                    ("range", begin, end, dice.randrange(4), dice.random() < 0.5),
                    ("range", b"", b"z", dice.randrange(4), dice.random() < 0.5),
                    ("set", key, dice.randbytes(dice.randrange(9))),
                    ("set", key, dice.randbytes(8)),
                    ("clear", key),
                    ("clear_range", begin, end),
                    ("add", key, dice.randint(-(2**40), 2**40)),
                ]
            )
        )
    return steps


def run_steps(steps: Sequence[Step], tx: Transaction) -> list[object]:
    """Makes the calls, and gives what the reading ones answered."""
    answers: list[object] = []
    for name, *arguments in steps:
        if name == "range":
            begin, end, limit, reverse = arguments
            answers.append(_range(tx, begin, end, limit, reverse))
        else:
            answers.append(getattr(tx, str(name))(*arguments))
    return answers


def _range(
    tx: ReadTransaction, begin: object, end: object, limit: object, reverse: object
) -> list[tuple[bytes, bytes]]:
    assert isinstance(begin, bytes)
    assert isinstance(end, bytes)
    assert isinstance(limit, int)
    return tx.range(begin, end, limit=limit, reverse=bool(reverse))
