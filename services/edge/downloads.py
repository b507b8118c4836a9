"""Downloads, whichever face asks: found, paid for by the byte, delivered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tollmesh.credits.v1 import credits_pb2 as credits_pb

from services.edge.admission import Caller
from services.edge.delivery import Piece, Source, Sources
from services.edge.holds import Usage
from services.edge.objects import ObjectInfo, ObjectKey
from services.edge.payments import Payment, Payments

METER = "download"


@dataclass(slots=True, eq=False)
class Download:
    """An admitted download of a part of an object."""

    info: ObjectInfo
    first: int
    length: int
    hit: bool
    """Whether the object was whole in the cache when the download began; the price goes by it."""
    detail: str
    """Where the bytes come from, for people."""
    pieces: AsyncGenerator[Piece]
    """The bytes; taken once, in order."""
    payment: Payment | None
    """None when there is nothing to pay for."""

    def deliver(self, total: int) -> None:
        """Notes that ``total`` bytes have left so far: what the account pays for."""
        if self.payment is not None:
            self.payment.deliver(total)


class Downloads:
    """Opens downloads.

    Args:
        payments: sets credit aside before, and settles after.
        sources: the cache, and what is behind it.
    """

    def __init__(self, payments: Payments, sources: Sources) -> None:
        self._payments = payments
        self._sources = sources

    @asynccontextmanager
    async def open(
        self, caller: Caller, key: ObjectKey, info: ObjectInfo, first: int, length: int
    ) -> AsyncIterator[Download]:
        """A download of ``length`` bytes from ``first``, which lie within the object.

        At the end the account pays for what was noted with ``deliver``, and only for that. Raises
        InsufficientCreditError, and what the credit and chain services raise; no byte left then.
        """
        if length == 0:
            yield Download(
                info, first, 0, hit=True, detail="empty", pieces=_nothing(), payment=None
            )
            return
        source = await self._sources.held(info)
        usage = _usage(caller, key, length, hit=source is not None)
        payment = self._payments.take(usage) or await self._payments.reserve(usage)
        try:
            async with self._opened(source, payment, key, info, first, length) as download:
                yield download
        finally:
            payment.settle()

    @asynccontextmanager
    async def _opened(
        self,
        source: Source | None,
        payment: Payment,
        key: ObjectKey,
        info: ObjectInfo,
        first: int,
        length: int,
    ) -> AsyncIterator[Download]:
        hit = source is not None
        source = source or await self._sources.fetched(key, info, first)
        pieces = source.pieces(first, length)
        try:
            yield Download(info, first, length, hit, source.detail, pieces, payment)
        finally:
            await pieces.aclose()


def _usage(caller: Caller, key: ObjectKey, length: int, *, hit: bool) -> Usage:
    result = credits_pb.CACHE_RESULT_HIT if hit else credits_pb.CACHE_RESULT_MISS
    return Usage(caller.account_id, METER, length, str(key), result)


async def _nothing() -> AsyncGenerator[Piece]:
    none: tuple[Piece, ...] = ()
    for piece in none:
        yield piece
