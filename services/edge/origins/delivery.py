"""Sends an answer's body to the client, and pays for what of it left, to the byte.

What counts is the same as for objects (``http/connection.py``). A body of unknown length goes out
in chunks, whose framing is not counted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator

from tollmesh.credits.v1 import credits_pb2 as credits_pb

from services.credits.errors import InsufficientCreditError
from services.edge.credit.holds import Usage
from services.edge.credit.payments import Payment, Payments
from services.edge.cut_off import CutOff
from services.edge.http.connection import Connection
from services.edge.http.exchange import Exchange
from services.edge.http.problems import Headers

_IN_KERNELS_BYTES = 16 * 1024 * 1024
Pieces = AsyncGenerator[bytes | memoryview]


class Bill:
    """What one account pays for one answer; to be settled, whatever became of it.

    Args:
        payments: sets credit aside.
        account_id: who pays.
        resource: for the ledger's entries.
        meter: what it counts.
        is_sponsored: whether somebody else pays than who asks, to whom no balance is told.
    """

    def __init__(
        self,
        payments: Payments,
        account_id: str,
        resource: str,
        meter: str = "download",
        *,
        is_sponsored: bool = False,
    ) -> None:
        self._meter = meter
        self._is_sponsored = is_sponsored
        self._payments = payments
        self._account_id = account_id
        self._resource = resource
        self._covered = 0
        self.payment: Payment | None = None

    def beside(self, meter: str) -> Bill:
        """A bill of the same account for something else."""
        return Bill(
            self._payments,
            self._account_id,
            self._resource,
            meter,
            is_sponsored=self._is_sponsored,
        )

    async def cover(self, total: int, *, hit: bool, spare: int = 0) -> None:
        """Sees to it that ``total`` bytes are covered; takes ``spare`` more when it must ask.

        Raises InsufficientCreditError, and ServiceError when the credit service cannot be reached.
        """
        if total <= self._covered:
            return
        try:
            try:
                await self._set_aside(total + spare, hit=hit)
            except InsufficientCreditError:
                if not spare:
                    raise
                await self._set_aside(total, hit=hit)  # the end may be near
        except InsufficientCreditError:
            if not self._is_sponsored:
                raise
            raise InsufficientCreditError("Who pays for this site has no credit left.") from None

    async def _set_aside(self, wanted: int, *, hit: bool) -> None:
        if self.payment is None:
            result = credits_pb.CACHE_RESULT_HIT if hit else credits_pb.CACHE_RESULT_MISS
            usage = Usage(self._account_id, self._meter, wanted, self._resource, result)
            self.payment = self._payments.take(usage) or await self._payments.reserve(usage)
        else:
            await self._payments.prolong(self.payment, wanted - self._covered)
        self._covered = wanted

    def headers(self) -> Headers:
        """What the answer costs at most as far as is known, and what is left besides."""
        payment = self.payment
        if self._is_sponsored:
            return []
        if payment is None:
            return [(b"tollmesh-cost", b"0")]
        return [
            (b"tollmesh-cost", b"%d" % payment.amount),
            (b"tollmesh-currency", payment.currency.encode("ascii", "replace")),
            (b"tollmesh-available", b"%d" % payment.available),
        ]

    def deliver(self, total: int) -> None:
        """Notes how much has left."""
        if self.payment is not None:
            self.payment.deliver(total)

    def settle(self) -> None:
        """Pays for what has left."""
        if self.payment is not None:
            self.payment.settle()
            self.payment = None


class _Sent:
    """How much of the body has left, whatever frames it.

    What the kernel had accepted may turn out not to have arrived, when the connection breaks: so
    the count may go back, by as much as kernels hold.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pieces: deque[tuple[int, int, int]] = deque()
        """Where each begins on the connection, its length, and how much of the body is before."""
        self._length = 0

    def add(self, start: int, length: int) -> None:
        self._pieces.append((start, length, self._length))
        self._length += length
        settled = self._connection.sent - _IN_KERNELS_BYTES
        while len(self._pieces) > 1 and self._pieces[1][0] <= settled:
            self._pieces.popleft()

    @property
    def total(self) -> int:
        gone = self._connection.sent
        for start, length, before in reversed(self._pieces):
            if gone > start:
                return before + min(gone - start, length)
        return self._pieces[0][2] if self._pieces else 0


async def deliver(
    exchange: Exchange, pieces: Pieces, *, length: int | None, bill: Bill, spare: int, hit: bool
) -> None:
    """Sends a body behind a head that is out already.

    Args:
        exchange: whose answer it is.
        pieces: the body.
        length: of the body; None when only its end will tell, so that it goes out in chunks.
        bill: pays; covers the body when its length is known.
        spare: what is set aside at once, as a body of unknown length grows.
        hit: what the bill goes by, if it has not begun.
    """
    connection, sent, total = exchange.connection, _Sent(exchange.connection), 0
    try:
        async for piece in pieces:
            if connection.lost:
                break
            total += len(piece)
            await bill.cover(total, hit=hit, spare=max(spare, total))
            framing = 0 if length is not None else len(b"%x" % len(piece)) + 2
            sent.add(connection.written + framing, len(piece))
            limit = _cut_off_later(exchange, bill)
            try:
                await exchange.send(piece, more=True)
            finally:
                limit.cancel()
            bill.deliver(sent.total)
        if not connection.lost:
            await exchange.send(b"")
        await connection.flushed(connection.written)
    except Exception:
        # What is right still goes out, and counts; that it is not all, the client sees.
        await exchange.break_off()
        raise
    finally:
        exchange.sent_bytes = sent.total
        bill.deliver(sent.total)


def _cut_off_later(exchange: Exchange, bill: Bill) -> CutOff:
    """Ends a transfer that its reader draws out, before what was set aside for it expires."""

    def ends_at() -> float:
        return math.inf if bill.payment is None else bill.payment.ends_at

    return CutOff(ends_at, exchange.connection.abort)
