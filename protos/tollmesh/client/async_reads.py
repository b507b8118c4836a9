"""What both credit clients can ask; the asynchronous half.

``sync_reads.py`` is made of this file by ``python -m tollmesh.client.unasync``; a test demands
that it is what this file gives.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime

import grpc

from tollmesh.client import requests
from tollmesh.client.async_calls import AsyncCalls
from tollmesh.client.errors import DeadlineExceeded, TollmeshError
from tollmesh.client.retrying import Attempts, left_s
from tollmesh.client.watches import Watched
from tollmesh.credits.v1 import credits_pb2 as pb

_CREDITS = "/tollmesh.credits.v1.CreditService/"


class AsyncReads:
    """Reads of one credit service, all safe to repeat."""

    _calls: AsyncCalls

    async def get_hold(
        self,
        account_id: str,
        hold_id: str,
        *,
        at_least_version: str = "",
        deadline_s: float | None = None,
    ) -> pb.GetHoldResponse:
        """One hold."""
        request = pb.GetHoldRequest(
            account_id=account_id, hold_id=hold_id, at_least_version=at_least_version
        )
        return await self._calls.call(f"{_CREDITS}GetHold", request, pb.GetHoldResponse, deadline_s)

    async def list_holds(
        self, account_id: str, *, page_size: int = 0, deadline_s: float | None = None
    ) -> AsyncIterator[pb.Hold]:
        """The open holds of an account, page after page; ``deadline_s`` is for each page."""
        request = pb.ListHoldsRequest(account_id=account_id, page_size=page_size)
        path = f"{_CREDITS}ListHolds"
        while True:
            page = await self._calls.call(path, request, pb.ListHoldsResponse, deadline_s)
            for hold in page.holds:
                yield hold
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def balance(
        self,
        account_id: str,
        *,
        currency: str = "",
        at_least_version: str = "",
        deadline_s: float | None = None,
    ) -> pb.GetBalanceResponse:
        """The balance and its grants, strictly fresh."""
        request = pb.GetBalanceRequest(
            account_id=account_id, currency=currency, at_least_version=at_least_version
        )
        path = f"{_CREDITS}GetBalance"
        return await self._calls.call(path, request, pb.GetBalanceResponse, deadline_s)

    async def watch_balance(
        self,
        account_id: str,
        *,
        currency: str = "",
        thresholds: Iterable[int] = (),
        thresholds_only: bool = False,
        at_least_version: str = "",
        deadline_s: float | None = None,
    ) -> AsyncIterator[pb.WatchBalanceResponse]:
        """The balance now, and again whenever it differs from the message before.

        A stream that breaks is followed by another, at least as fresh; nothing is told twice, and
        an event is told for each threshold between the message before the break and the first one
        after it. Raises when the service cannot be reached for the client's deadline, and
        DeadlineExceeded after ``deadline_s``.
        """
        request = pb.WatchBalanceRequest(
            account_id=account_id,
            currency=currency,
            at_least_version=at_least_version,
            thresholds=thresholds,
            thresholds_only=thresholds_only,
        )
        path = f"{_CREDITS}WatchBalance"
        watched = Watched(request)
        ends_at = None if deadline_s is None else self._calls.deadline(deadline_s)
        attempts: Attempts | None = None
        while True:
            try:
                async for answer in self._calls.stream(
                    path, request, pb.WatchBalanceResponse, left_s(ends_at)
                ):
                    attempts = None
                    news = watched.news(answer)
                    if news is not None:
                        yield news
                error = TollmeshError("the stream ended", code=grpc.StatusCode.UNAVAILABLE)
            except TollmeshError as broken:
                error = broken
            if left_s(ends_at) == 0:
                raise DeadlineExceeded
            attempts = attempts or self._calls.attempts(None)
            await self._calls.pause(attempts, error)

    async def usage(
        self,
        account_id: str,
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        period: pb.UsagePeriod.ValueType = pb.USAGE_PERIOD_UNSPECIFIED,
        deadline_s: float | None = None,
    ) -> list[pb.MeterUsage]:
        """What an account used, by meter, over whole UTC days."""
        request = pb.GetUsageRequest(
            account_id=account_id,
            start_time=requests.timestamp(start_time),
            end_time=requests.timestamp(end_time),
            period=period,
        )
        path = f"{_CREDITS}GetUsage"
        answer = await self._calls.call(path, request, pb.GetUsageResponse, deadline_s)
        return list(answer.usage)

    async def entries(
        self,
        account_id: str,
        *,
        newest_first: bool = False,
        page_size: int = 0,
        at_least_version: str = "",
        deadline_s: float | None = None,
    ) -> AsyncIterator[pb.Entry]:
        """The account's ledger, page after page; ``deadline_s`` is for each page."""
        request = pb.ListEntriesRequest(
            account_id=account_id,
            newest_first=newest_first,
            page_size=page_size,
            at_least_version=at_least_version,
        )
        path = f"{_CREDITS}ListEntries"
        while True:
            page = await self._calls.call(path, request, pb.ListEntriesResponse, deadline_s)
            for entry in page.entries:
                yield entry
            request.page_token = page.next_page_token
            if not request.page_token:
                return
