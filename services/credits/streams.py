"""Debits without end: a stream of them in, their outcomes out in the same order.

At most about WINDOW debits are under way: beyond it the caller's stream is not read, and a caller
that does not take its outcomes soon has that many. What is under way when a stream breaks is done
or refused all the same, each debit once: its request id tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import NamedTuple

from services.credits.debits import Debit
from services.credits.parcels import Applied, Parcels, Share, collected
from services.rpc.errors import ServiceError

WINDOW = 4_000
"""Debits under way, beyond which no message is read (which may have brought a thousand more)."""
TOGETHER = 1_000
"""Outcomes after which a part of the answer is full."""


class Streamed(NamedTuple):
    """The next debits and what became of them."""

    debits: Sequence[Debit]
    outcomes: Sequence[Applied | ServiceError]


class _Part(NamedTuple):
    """A message's debits, on their way."""

    debits: Sequence[Debit]
    shares: list[tuple[Share, list[int]]]

    def is_done(self) -> bool:
        return all(share.done() for share, _ in self.shares)


class DebitStream:
    """One stream."""

    def __init__(self, parcels: Parcels) -> None:
        self._parcels = parcels
        self._parts: list[_Part] = []
        self._under_way = 0
        self._ended = False
        self._changed = asyncio.Event()
        """There is a part, or the end, for the one who waits for them."""
        self._room = asyncio.Event()

    async def outcomes(
        self, messages: AsyncIterator[Sequence[Debit]]
    ) -> AsyncGenerator[Streamed, None]:
        """The outcomes, grouped as they are there. Ends with the messages, or as they fail.

        Raises what ``messages`` raised, and store errors, after the outcomes before.
        """
        reader = asyncio.get_running_loop().create_task(self._read(messages))
        try:
            while await self._there_is_more():
                ready = self._next()
                debits = [debit for part in ready for debit in part.debits]
                outcomes: list[Applied | ServiceError] = []
                for part in ready:
                    outcomes += await collected(part.shares, len(part.debits))
                yield Streamed(debits, outcomes)
                self._under_way -= len(debits)
                self._room.set()
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, messages: AsyncIterator[Sequence[Debit]]) -> None:
        try:
            async for debits in messages:
                while self._under_way >= WINDOW:
                    self._room.clear()
                    await self._room.wait()
                if debits:
                    self._parts.append(_Part(debits, self._parcels.add_all(debits)))
                    self._under_way += len(debits)
                    self._changed.set()
        finally:
            self._ended = True
            self._changed.set()

    async def _there_is_more(self) -> bool:
        while not self._parts and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        return bool(self._parts)

    def _next(self) -> list[_Part]:
        """The first part, and those behind it that are done, as far as they fit."""
        parts, size = [self._parts[0]], len(self._parts[0].debits)
        for part in self._parts[1:]:
            size += len(part.debits)
            if size > TOGETHER or not part.is_done():
                break
            parts.append(part)
        del self._parts[: len(parts)]
        return parts
