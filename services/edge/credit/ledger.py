"""The credit service as the edge uses it: calls repeated, with one request id, until answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.duration_pb2 import Duration
from tollmesh.credits.v1 import credits_pb2 as pb

from services.edge.behind import Behind, NotAskedError
from services.edge.credit.journal import Entry
from services.edge.origin import is_retryable
from services.rpc.errors import DependencyUnavailableError, ServiceError

if TYPE_CHECKING:  # the type has no class at run time
    from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceAsyncStub

T = TypeVar("T")

TIMEOUT_S = 2.0
"""Of one attempt."""
REPEAT_S = 12 * 3600.0
"""How long a settlement is repeated. Request ids are remembered longer, so it is done once."""
_LIST_S = 5.0
# Together longer than a channel waits before it looks again for a service that was not there.
_ATTEMPTS = 4
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class Reserved:
    """A hold as the credit service made it."""

    hold_id: str
    amount: int
    currency: str
    available: int
    """What the account can still spend besides."""
    replayed: bool
    """Whether an earlier attempt made it; it may be closed by now."""


class Ledger:
    """Calls to the credit service. Its errors come through as they are.

    ``until`` (Unix time, in s) is how long a call is repeated while the service cannot be reached;
    without it, a few times.
    """

    def __init__(self, stub: CreditServiceAsyncStub) -> None:
        self._stub = stub
        self._behind = Behind("credits")

    async def reserve(self, entry: Entry, *, until: float = 0.0) -> Reserved:
        """Sets credit aside for an estimate, with the entry's expiry policy.

        What a capture takes above it, or too late, is a shortfall where the balance has no more.
        Raises NotAskedError when the service is known to hang.
        """
        if not until:
            self._behind.check()
        request = pb.ReserveRequest(
            request_id=entry.request_id,
            account_id=entry.account_id,
            metered=_metered(entry, entry.estimate),
            time_to_live=Duration(seconds=entry.hold_s),
            expiry_policy=pb.ExpiryPolicy.ValueType(entry.policy),
            excess_rule=pb.EXCESS_RULE_SHORTFALL,
            resource=entry.resource,
        )
        return _reserved(
            await repeated(
                lambda: self._asked(lambda: self._stub.Reserve(request, timeout=TIMEOUT_S), until),
                until,
            )
        )

    async def extend(self, entry: Entry, quantity: int, live_s: int, request_id: str) -> Reserved:
        """Adds the price of ``quantity`` to an open hold and prolongs it; the hold after it."""
        request = pb.ExtendHoldRequest(
            request_id=request_id,
            account_id=entry.account_id,
            hold_id=entry.hold_id,
            time_to_live=Duration(seconds=live_s),
            metered=_metered(entry, quantity),
        )
        return _reserved(
            await repeated(
                lambda: self._asked(lambda: self._stub.ExtendHold(request, timeout=TIMEOUT_S))
            )
        )

    async def capture(self, entry: Entry, quantity: int, request_id: str, until: float) -> int:
        """Pays for ``quantity`` out of a hold and gives back the rest; the amount."""
        request = pb.CaptureRequest(
            request_id=request_id,
            account_id=entry.account_id,
            hold_id=entry.hold_id,
            metered=_metered(entry, quantity),
            final=True,
        )
        answer = await repeated(lambda: self._stub.Capture(request, timeout=TIMEOUT_S), until)
        return answer.amount

    async def release(self, account_id: str, hold_id: str, request_id: str, until: float) -> None:
        """Gives a hold back."""
        request = pb.ReleaseRequest(request_id=request_id, account_id=account_id, hold_id=hold_id)
        await repeated(lambda: self._stub.Release(request, timeout=TIMEOUT_S), until)

    async def debit(self, entry: Entry, quantity: int, request_id: str, until: float) -> int:
        """Pays for ``quantity`` out of the balance, when its hold is gone; the amount."""
        request = pb.DebitRequest(
            request_id=request_id,
            account_id=entry.account_id,
            metered=_metered(entry, quantity),
            resource=entry.resource,
        )
        answer = await repeated(lambda: self._stub.Debit(request, timeout=TIMEOUT_S), until)
        return answer.amount

    async def debited(self, account_id: str, request_id: str, since: float) -> int | None:
        """What a debit of this id took, if it was made after ``since`` (Unix time, in s)."""
        page_token = ""
        while True:
            request = pb.ListEntriesRequest(
                account_id=account_id, page_size=1000, page_token=page_token, newest_first=True
            )
            page = await repeated(partial(self._stub.ListEntries, request, timeout=_LIST_S))
            for entry in page.entries:
                if entry.request_id == request_id:
                    return entry.amount
                if entry.create_time.seconds < since:
                    return None
            page_token = page.next_page_token
            if not page_token:
                return None

    async def is_usable(self, account_id: str, hold_id: str) -> bool:
        """Whether a hold still sets credit aside, or was captured: that is answered again."""
        request = pb.GetHoldRequest(account_id=account_id, hold_id=hold_id)
        answer = await repeated(
            lambda: self._asked(lambda: self._stub.GetHold(request, timeout=TIMEOUT_S))
        )
        return answer.hold.state in {pb.HOLD_STATE_OPEN, pb.HOLD_STATE_CAPTURED}

    async def _asked(self, call: Callable[[], Awaitable[T]], until: float = 0.0) -> T:
        """One attempt; while somebody waits for it, a service that hangs is not asked again."""
        if until:
            return await call()
        try:
            return await self._behind.ask(call)
        except NotAskedError as error:  # an attempt before this one may have had an effect
            raise DependencyUnavailableError from error


async def repeated(call: Callable[[], Awaitable[T]], until: float = 0.0) -> T:
    """The answer of a call that fails for now, which is repeated ``until`` a time (Unix, in s)."""
    backoff_s, attempt = _FIRST_BACKOFF_S, 0
    ends_at = time.monotonic() + until - time.time()  # a clock that jumps ends nothing early
    while True:
        attempt += 1
        try:
            return await call()
        except ServiceError as error:
            if not is_retryable(error) or (attempt >= _ATTEMPTS and time.monotonic() >= ends_at):
                raise
        await asyncio.sleep(backoff_s * random.uniform(0.5, 1))  # noqa: S311 (jitter)
        backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)


def _reserved(answer: pb.ReserveResponse | pb.ExtendHoldResponse) -> Reserved:
    hold = answer.hold
    available = answer.balance.available
    return Reserved(hold.hold_id, hold.amount, hold.currency, available, answer.replayed)


def _metered(entry: Entry, quantity: int) -> pb.MeteredQuantity:
    result = pb.CacheResult.ValueType(entry.cache_result)
    return pb.MeteredQuantity(meter=entry.meter, quantity=quantity, cache_result=result)
