"""A lease that a program spends without calls, settled in the background by a task."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tollmesh.client.errors import LeaseExhausted, TollmeshError
from tollmesh.client.leases import LEAST_PAUSE_S, Account, Spending
from tollmesh.client.requests import Metered
from tollmesh.credits.v1 import leases_pb2 as pb

if TYPE_CHECKING:
    from tollmesh.client.async_client import AsyncCreditClient


class AsyncLease:
    """Use as ``async with client.lease(...)``: opened there, settled and closed at the end."""

    def __init__(
        self, client: AsyncCreditClient, request: pb.OpenLeaseRequest, settle_every_s: float
    ) -> None:
        self._client = client
        self._request = request
        self._every_s = settle_every_s
        self._wake = asyncio.Event()
        self._account: Account | None = None
        self._settling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        at = time.monotonic()
        answer = await self._client.open_lease(self._request)
        self._account = Account(self._request, answer, at)
        self._settling = asyncio.create_task(self._settle_for_ever())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Settles what is left. Raises what the service refused; the rest is settled."""
        assert self._settling is not None  # noqa: S101 (it was opened)
        self._settling.cancel()
        with suppress(asyncio.CancelledError):
            await self._settling
        while not await self._settle(final=True):
            pass

    @property
    def available(self) -> int:
        """What can still be spent without a settlement."""
        return self._books.available

    def spend(
        self,
        amount: int | None = None,
        *,
        metered: Metered | None = None,
        estimate: int | None = None,
        resource: str = "",
    ) -> None:
        """Spends without I/O. Raises LeaseExhausted; a settlement that may bring more begins.

        Args:
            amount: or, instead of it, ``metered`` with an ``estimate``.
            metered: the tariff prices it when it is settled, together with all of the same meter
                and resource that is settled then.
            estimate: what it costs at most: so much of the lease is set aside until then.
            resource: what it pays for, for the ledger.
        """
        try:
            self._books.spend(Spending.of(amount, metered, estimate, resource))
        except LeaseExhausted:
            self._wake.set()
            raise
        if self._books.low():
            self._wake.set()

    @property
    def _books(self) -> Account:
        if self._account is None:
            raise RuntimeError("the lease is open inside its async with block only")
        return self._account

    async def _settle_for_ever(self) -> None:
        while True:
            await asyncio.sleep(min(LEAST_PAUSE_S, self._every_s))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._settle(final=False)
            except TollmeshError as error:
                # The same settlement is repeated next; until the lease ends it may be spent on.
                await asyncio.sleep(error.retry_after_s or self._every_s)

    async def _settle(self, *, final: bool) -> bool:
        """One settlement; True when it closed the lease."""
        at = time.monotonic()
        request = self._books.settlement(final=final)
        try:
            answer = await self._client.settle_lease(request)
        except TollmeshError as error:
            if self._books.refused(error.reason):
                return False
            raise
        self._books.settled(answer, at)
        return request.final
