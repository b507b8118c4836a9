"""Reads of the chain service that begin with the question what an object is.

A reader of an object that is not here would wait for two round trips: one to learn its size, which
has to be paid, and one for its bytes. A read that is begun at once answers both in one; it is kept
here for the moment between, and ends when nobody takes it up. It is for the first AHEAD_BYTES at
most, so what nobody takes up costs little.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from tollmesh.chain.v1 import chain_pb2 as pb

from services.edge.objects import ObjectKey

AHEAD_BYTES = 1024 * 1024
_KEPT_S = 2.0
_MOST = 64


class Cancellable(Protocol):
    """A call under way."""

    def cancel(self) -> object:
        """Ends it."""


class Opened(NamedTuple):
    """A read of an object's first AHEAD_BYTES that has told what it is, and no byte yet."""

    call: Cancellable
    answers: AsyncIterator[pb.ReadObjectResponse]
    found: pb.ObjectInfo


class ReadsAhead:
    """Opened reads that somebody is about to take up; few, and not for long."""

    def __init__(self) -> None:
        self._opened: dict[ObjectKey, tuple[Opened, asyncio.TimerHandle]] = {}

    def put(self, key: ObjectKey, opened: Opened) -> None:
        """Keeps a read for a moment. One of the same object, or the oldest of too many, ends."""
        self._drop(key)
        if len(self._opened) >= _MOST:
            self._drop(next(iter(self._opened)))
        timer = asyncio.get_running_loop().call_later(_KEPT_S, self._drop, key)
        self._opened[key] = opened, timer

    def take(self, key: ObjectKey, first: int, length: int) -> Opened | None:
        """The read that begins these bytes, all of an object, if it is here; the caller ends it."""
        found = self._opened.get(key)
        if found is None or first or found[0].found.size_bytes != length:
            return None
        del self._opened[key]
        opened, timer = found
        timer.cancel()
        return opened

    def close(self) -> None:
        """Ends them all."""
        for key in list(self._opened):
            self._drop(key)

    def _drop(self, key: ObjectKey) -> None:
        found = self._opened.pop(key, None)
        if found is not None:
            opened, timer = found
            timer.cancel()
            opened.call.cancel()
