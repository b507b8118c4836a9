"""Downloads, whichever face asks: found, paid for by the byte, delivered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

from tollmesh.credits.v1 import credits_pb2 as credits_pb

from services.edge.admission import Caller
from services.edge.credit.holds import Usage
from services.edge.credit.payments import Payment, Payments
from services.edge.delivery import FillSource, Piece, Source, Sources
from services.edge.objects import ObjectInfo, ObjectKey

METER = "download"


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of an object, and what is sent before them: a delimiter between several parts."""

    first: int
    length: int
    before: bytes = b""


@dataclass(slots=True, eq=False)
class Download:
    """An admitted download of a part of an object, or of several."""

    info: ObjectInfo
    length: int
    """Of all that is sent, delimiters included."""
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

    def may_read_ahead(self, caller: Caller) -> bool:
        """Whether an object may be fetched before its price is known: this edge has credit for it.

        Who has none here yet does not make the edge fetch a byte before it is set aside.
        """
        return self._payments.covers_some(caller.account_id, METER)

    def open(
        self, caller: Caller, key: ObjectKey, info: ObjectInfo, first: int, length: int
    ) -> AbstractAsyncContextManager[Download]:
        """A download of ``length`` bytes from ``first``, which lie within the object.

        At the end the account pays for what was noted with ``deliver``, and only for that. Raises
        InsufficientCreditError, and what the credit and chain services raise; no byte left then.
        """
        return self.open_parts(caller, key, info, (Part(first, length),) if length else ())

    @asynccontextmanager
    async def open_parts(
        self,
        caller: Caller,
        key: ObjectKey,
        info: ObjectInfo,
        parts: Sequence[Part],
        after: bytes = b"",
    ) -> AsyncIterator[Download]:
        """A download of several parts, in this order, with ``after`` behind the last.

        As ``open``. What stands between the parts is sent and paid for like their bytes.
        """
        if not parts:
            yield Download(info, 0, hit=True, detail="empty", pieces=_nothing(), payment=None)
            return
        length = sum(len(part.before) + part.length for part in parts) + len(after)
        source = await self._sources.held(key, info)
        usage = usage_of(caller, key, length, hit=source is not None)
        payment = self._payments.take(usage) or await self._payments.reserve(usage)
        try:
            hit = source is not None
            source = source or await self._sources.fetched(key, info, parts[0].first)
            if len(parts) == 1 and not after:
                pieces = source.pieces(parts[0].first, parts[0].length)
            else:
                pieces = self._several(source, key, info, parts, after, hit=hit)
            try:
                yield Download(info, length, hit, source.detail, pieces, payment)
            finally:
                await pieces.aclose()
        finally:
            payment.settle()

    async def _several(
        self,
        source: Source,
        key: ObjectKey,
        info: ObjectInfo,
        parts: Sequence[Part],
        after: bytes,
        *,
        hit: bool,
    ) -> AsyncGenerator[Piece]:
        """The bytes of several parts; each waits only for its own."""
        with ExitStack() as used:
            for number, part in enumerate(parts):
                if number and not hit:
                    source = await self._sources.nearest(key, info, part.first)
                if isinstance(source, FillSource):
                    # A fetch that one part reads of is not broken off before the next.
                    used.enter_context(source.in_use())
                before = part.before
                async with aclosing(source.pieces(part.first, part.length)) as pieces:
                    async for piece in pieces:
                        if before:  # only now: until a byte is here, a failure can be told
                            yield before
                            before = b""
                        yield piece
        yield after


def usage_of(caller: Caller, key: ObjectKey, length: int, *, hit: bool) -> Usage:
    """What a download of so many bytes is to be paid for as."""
    result = credits_pb.CACHE_RESULT_HIT if hit else credits_pb.CACHE_RESULT_MISS
    return Usage(caller.account_id, METER, length, str(key), result)


async def _nothing() -> AsyncGenerator[Piece]:
    none: tuple[Piece, ...] = ()
    for piece in none:
        yield piece
