"""The memory tier: aiocache's interface over moka, bounded by weight.

moka (a Rust library, TinyLFU admission) keeps what is asked for often, so a scan of many objects
that are read once does not push out the popular ones. Values stay as they are: nothing is copied
or serialized. Not for sharing between processes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from aiocache.base import BaseCache  # type: ignore[import-untyped]  # aiocache has no types
from aiocache.serializers import (  # type: ignore[import-untyped]  # aiocache has no types
    NullSerializer,
)
from moka_py import Moka

_ENTRY_BYTES = 200  # what an entry costs besides its value: key, pointers, frequency sketch


def bytes_weight(_: str, value: bytes) -> int:
    """The weight of a value that is bytes: what it takes in memory."""
    return len(value) + _ENTRY_BYTES


class MokaCache(BaseCache):  # type: ignore[misc]  # its base has no types
    """A bounded cache in this process. ``get``, ``set(ttl=)``, ``delete`` and more by aiocache.

    Args:
        capacity: the greatest sum of weights. 0 keeps nothing.
        weigher: the weight of a key and its value; without one every entry weighs 1.
    """

    NAME = "moka"

    def __init__(self, capacity: int, weigher: Callable[[Any, Any], int] | None = None) -> None:
        # timeout=0: nothing here waits, and aiocache's timer costs 14 us a call.
        super().__init__(serializer=NullSerializer(), timeout=0)
        self._moka: Moka[Any, Any] = Moka(capacity, weigher=weigher)
        self.peek: Callable[[Any], Any] = self._moka.get
        """As ``get``, for callers that cannot wait; None when there is nothing."""

    @property
    def weight(self) -> int:
        """The sum of the weights of what is kept, to the byte."""
        self._moka.run_pending_tasks()
        return self._moka.weighted_size()

    def put(self, key: Hashable, value: object, ttl: float | None = None) -> None:
        """As ``set``, for callers that cannot wait."""
        self._moka.set(key, value, ttl=ttl)
        # By itself moka forgets later, many at once: a hundred values too many would be here.
        self._moka.run_pending_tasks()

    # aiocache's hooks. It passes its connection and encoding by keyword; there are none here.

    async def _get(self, key: Hashable, **_: object) -> object:
        return self._moka.get(key)

    async def _multi_get(self, keys: list[Hashable], **_: object) -> list[object]:
        return [self._moka.get(key) for key in keys]

    async def _set(
        self, key: Hashable, value: object, ttl: float | None = None, **_: object
    ) -> bool:
        self.put(key, value, ttl)
        return True

    async def _multi_set(
        self, pairs: list[tuple[Hashable, object]], ttl: float | None = None, **_: object
    ) -> bool:
        for key, value in pairs:
            self.put(key, value, ttl)
        return True

    async def _add(
        self, key: Hashable, value: object, ttl: float | None = None, **_: object
    ) -> bool:
        if self._moka.get(key) is not None:
            raise ValueError(f"{key} is there already")
        return await self._set(key, value, ttl=ttl)

    async def _exists(self, key: Hashable, **_: object) -> bool:
        return self._moka.get(key) is not None

    async def _delete(self, key: Hashable, **_: object) -> int:
        return int(self._moka.remove(key) is not None)

    async def _clear(self, *_: object, **__: object) -> bool:
        self._moka.clear()
        return True
