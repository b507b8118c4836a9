"""Credit set aside before a transfer and settled after it, exactly: the edge's side of the ledger.

A hold is made for the estimate; when the transfer ends, what was really delivered is captured and
the rest released, or all of it when nothing was delivered. Settlement goes on in the background,
repeated with the same request id until the credit service has answered, and is in the journal from
the first byte: an edge that dies settles when it starts again.

A hold that nobody settles, because the edge never comes back, is released or debited when it
expires, as its policy says. A settlement that comes after the expiry still counts: what the expiry
debited too much is given back, what it released is taken from the balance.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from tollmesh.credits.v1 import credits_pb2 as credits_pb

from services.credits.errors import HoldNotOpenError, InsufficientCreditError
from services.edge.background import ended, start
from services.edge.behind import NotAskedError
from services.edge.credit.journal import Entry, Journal
from services.edge.credit.ledger import REPEAT_S, Ledger, Reserved
from services.edge.origin import is_retryable
from services.process.logs import get_logger
from services.rpc.errors import InternalError, RequestIdReusedError, ServiceError

T = TypeVar("T")

log = get_logger(__name__)

SETTLEMENT_S = 60.0
"""How much longer than its transfer a hold lives."""

_LONGEST_HOLD_S = 7 * 86_400
_DEBIT_ESTIMATE = int(credits_pb.EXPIRY_POLICY_DEBIT_ESTIMATE)


class Usage(NamedTuple):
    """What is to be paid for: so many bytes on a meter."""

    account_id: str
    meter: str
    quantity: int
    resource: str
    """For the ledger's entries: the CID, say."""
    cache_result: int = credits_pb.CACHE_RESULT_UNSPECIFIED
    moved_bytes: int | None = None
    """How many bytes are moved for it, where that is not the quantity: how long it may take."""


@dataclass(frozen=True, slots=True)
class HoldPolicy:
    """What becomes of holds in bad times."""

    unsettled: int = credits_pb.EXPIRY_POLICY_RELEASE
    """An ExpiryPolicy: of a delivery whose edge never comes back."""
    debit_unreported: bool = False
    """Whether guests' deliveries that a dead process left unreported are debited."""
    top_up_url: str = ""
    """Where accounts get more credit; told to those who have too little."""


MakeRoom = Callable[[Usage, InsufficientCreditError, bool], Awaitable[bool]]
"""Gives credit back, or (True) fills up what this edge can spend on such a delivery."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was paid."""

    amount: int
    currency: str


@dataclass(slots=True, eq=False)
class Hold:
    """Credit set aside for one transfer. Ends with ``Holds.settle``."""

    entry: Entry
    reserved: Reserved
    ends_at: float
    """When the transfer must have ended, on the clock of ``time.monotonic``."""
    slot: int
    journal: Journal
    extensions: int = 0
    """How many were asked for."""

    def deliver(self, total: int) -> None:
        """Notes that ``total`` bytes were delivered so far."""
        self.entry.delivered = total
        self.journal.note(self.slot, total)


class Holds:
    """Makes and settles holds.

    Args:
        ledger: the credit service.
        journal: where holds under way are noted.
        transfer_s: how long a transfer may take at least.
        slowest_bytes_per_s: how much longer it may take by its size.
        policy: what becomes of them in bad times.
        make_room: asked to give credit of the account back when it has too little; whether it did.
    """

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        *,
        transfer_s: float,
        slowest_bytes_per_s: float,
        policy: HoldPolicy | None = None,
        make_room: MakeRoom | None = None,
    ) -> None:
        self._ledger = ledger
        self._journal = journal
        self._transfer_s = transfer_s
        self._slowest_bytes_per_s = slowest_bytes_per_s
        self._policy = policy or HoldPolicy()
        self._make_room = make_room
        self._tasks: set[asyncio.Task[Any]] = set()

    def recover(self) -> int:
        """Settles, in the background, what the process before this one left; how many holds."""
        left = self._journal.left()
        for slot, entry in left:
            if entry.hold_id:
                if entry.guest and self._policy.debit_unreported:
                    entry.delivered = max(entry.delivered, entry.estimate)
                self._start(self._settled(slot, entry, currency=""))
            else:
                self._start(self._undone(slot, entry))
        return len(left)

    async def reserve(
        self,
        usage: Usage,
        *,
        request_id: str | None = None,
        delivery: bool = False,
        guest: bool = False,
    ) -> Hold:
        """Sets credit aside for ``usage``.

        Args:
            usage: the estimate, which is also the most that can be delivered.
            request_id: what the ids of the hold and its settlement are made from, at most 48
                characters. Given again after a failure, it finds the hold that is still open, or
                makes the next one.
            delivery: whether bytes leave under it from now on; unsettled, it goes by the policy.
            guest: whether somebody else delivers them, and reports.

        Raises:
            InsufficientCreditError: the account has not enough.
            RequestIdReusedError: the id stands for something else.
            ServiceError: the credit service cannot be reached (nothing was delivered).
        """
        policy = self._policy.unsettled if delivery else credits_pb.EXPIRY_POLICY_RELEASE

        async def ask(request_id: str) -> Hold:
            entry = self._entry(usage, request_id, policy, guest=guest)
            return await self._roomy(lambda: self._reserve(entry), entry, fill=delivery)

        if request_id is None:
            return await ask(f"{uuid4().hex}-r")
        attempt = 0
        while True:
            attempt += 1
            hold = await ask(f"{request_id}-r{attempt}")
            try:
                if not hold.reserved.replayed or await self._ledger.is_usable(
                    usage.account_id, hold.reserved.hold_id
                ):
                    return hold
            except BaseException:
                self.settle(hold)
                raise
            self._journal.clear(hold.slot)

    async def extend(self, hold: Hold, quantity: int) -> None:
        """Sets credit aside for ``quantity`` besides, and gives the transfer time for it.

        Raises:
            InsufficientCreditError: the account has not enough; the hold is as it was.
            ServiceError: the credit service cannot be reached, or the hold is not open any more.
        """
        hold.extensions += 1
        now = time.monotonic()
        limit_s = max(0.0, hold.ends_at - now) + quantity / self._slowest_bytes_per_s
        limit_s = min(limit_s, _LONGEST_HOLD_S - SETTLEMENT_S)
        request_id = f"{hold.entry.request_id}-e{hold.extensions}"
        live_s, entry = int(limit_s + SETTLEMENT_S), hold.entry
        hold.reserved = await self._roomy(
            lambda: self._ledger.extend(entry, quantity, live_s, request_id), entry, fill=False
        )
        hold.ends_at = now + limit_s
        entry.expires_at = time.time() + live_s
        entry.estimate += quantity
        self._journal.note_estimate(hold.slot, entry.estimate)

    async def debit(self, usage: Usage, request_id: str) -> int:
        """Pays for ``usage`` at once, out of the balance; the amount. Idempotent by ``request_id``.

        Raises InsufficientCreditError, and ServiceError when the credit service cannot be reached
        (whether it was paid is not known: repeat it).
        """
        entry = self._entry(usage, request_id, credits_pb.EXPIRY_POLICY_RELEASE, guest=False)

        async def ask() -> int:
            return await self._ledger.debit(entry, usage.quantity, request_id, until=0.0)

        return await self._roomy(ask, entry, fill=False)

    def settle(self, hold: Hold) -> asyncio.Task[Receipt | None]:
        """Pays for what was delivered, and only that, in the background; its receipt.

        None stands for what could not be had: the log says so.
        """
        if hold.entry.guest:
            self._journal.note_end(hold.slot)
        return self._start(self._settled(hold.slot, hold.entry, hold.reserved.currency))

    async def drain(self, timeout_s: float) -> None:
        """Waits for settlements under way; those that do not end in time stay in the journal."""
        late = await ended(self._tasks, timeout_s)
        if late:
            log.warning("settlements_postponed", count=late)
        self._journal.close()

    def refused(self, error: InsufficientCreditError) -> InsufficientCreditError:
        """The error with a word on where more credit is to be had."""
        if self._policy.top_up_url:
            error.metadata["top_up_url"] = self._policy.top_up_url
        return error

    async def _roomy(self, ask: Callable[[], Awaitable[T]], entry: Entry, *, fill: bool) -> T:
        """Asks for credit, and once more if this edge can give back some of the account's own."""
        try:
            return await ask()
        except InsufficientCreditError as error:
            usage = _usage(entry)
            if self._make_room is None or not await self._make_room(usage, error, fill):
                raise self.refused(error) from None
        try:
            return await ask()
        except InsufficientCreditError as error:
            raise self.refused(error) from None

    def _start(self, work: Coroutine[Any, Any, Receipt | None]) -> asyncio.Task[Receipt | None]:
        task = start(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _reserve(self, entry: Entry) -> Hold:
        ends_at = time.monotonic() + entry.hold_s - SETTLEMENT_S
        slot = self._journal.write(entry)
        try:
            reserved = await self._ledger.reserve(entry)
        except (InsufficientCreditError, RequestIdReusedError, NotAskedError):
            self._journal.clear(slot)
            raise
        except BaseException as error:
            if isinstance(error, ServiceError) and not is_retryable(error):
                self._journal.clear(slot)
                raise _unexpected(error) from error
            # Whether there is a hold now is not known, or nobody waits for it any more.
            self._start(self._undone(slot, entry))
            raise
        self._journal.name_hold(slot, reserved.hold_id)
        entry.hold_id = reserved.hold_id
        return Hold(entry, reserved, ends_at, slot, self._journal)

    def _entry(self, usage: Usage, request_id: str, policy: int, *, guest: bool) -> Entry:
        moved_bytes = usage.quantity if usage.moved_bytes is None else usage.moved_bytes
        limit_s = self._transfer_s + moved_bytes / self._slowest_bytes_per_s
        hold_s = int(min(limit_s + SETTLEMENT_S, _LONGEST_HOLD_S))
        return Entry(
            account_id=usage.account_id,
            request_id=request_id,
            meter=usage.meter,
            cache_result=usage.cache_result,
            # As much as both the journal and the contract take.
            resource=usage.resource.encode()[:256].decode(errors="ignore"),
            estimate=usage.quantity,
            hold_s=hold_s,
            expires_at=time.time() + hold_s,
            policy=policy,
            guest=guest,
        )

    async def _undone(self, slot: int, entry: Entry) -> None:
        """Learns which hold a reservation made, if it did, and gives it back."""
        until = entry.expires_at
        if entry.policy == _DEBIT_ESTIMATE:
            until += REPEAT_S  # its expiry would take what nobody delivered
        try:
            entry.hold_id = (await self._ledger.reserve(entry, until=until)).hold_id
            await self._give_back(entry, until)
        except ServiceError as error:
            log.info("reservation_not_undone", reason=error.reason_name())
        self._journal.clear(slot)

    async def _settled(self, slot: int, entry: Entry, currency: str) -> Receipt | None:
        """Settles once and for all; when cancelled, the journal keeps what is to be settled."""
        receipt = None
        try:
            receipt = Receipt(await self._pay(entry), currency)
        except ServiceError as error:
            log.error(  # noqa: TRY400 (the reason says it all)
                "delivery_unpaid",
                account_id=entry.account_id,
                hold_id=entry.hold_id,
                meter=entry.meter,
                quantity=entry.delivered,
                reason=error.reason_name(),
            )
        self._journal.clear(slot)
        return receipt

    async def _pay(self, entry: Entry) -> int:
        until = max(entry.expires_at, time.time()) + REPEAT_S
        # One capture for all attempts of a request; one release for each of its holds.
        request_id = entry.request_id.rpartition("-")[0]
        delivered = entry.delivered
        if not delivered:
            await self._give_back(entry, until)
            return 0
        try:
            return await self._ledger.capture(entry, delivered, f"{request_id}-c", until)
        except HoldNotOpenError as error:
            if error.metadata.get("state") == "CAPTURED":
                return 0
            log.warning("settlement_late", account_id=entry.account_id, hold_id=entry.hold_id)
            return await self._ledger.debit(entry, delivered, f"{request_id}-d", until)

    async def _give_back(self, entry: Entry, until: float) -> None:
        """Nothing was delivered: releases the hold, or has refunded what its expiry debited."""
        request_id = _release_id(entry)
        try:
            await self._ledger.release(entry.account_id, entry.hold_id, request_id, until)
        except HoldNotOpenError as error:
            is_expired = error.metadata.get("state") == "EXPIRED"
            if is_expired and entry.policy == _DEBIT_ESTIMATE:
                await self._ledger.capture(entry, 0, request_id, until)


def _usage(entry: Entry) -> Usage:
    return Usage(entry.account_id, entry.meter, entry.estimate, entry.resource, entry.cache_result)


def _release_id(entry: Entry) -> str:
    return f"{entry.request_id}-x"


def _unexpected(error: ServiceError) -> InternalError:
    """What the caller cannot help: a meter without a price, say."""
    incident_id = uuid4().hex[:16]
    log.error("reservation_refused", incident_id=incident_id, reason=error.reason_name())
    return InternalError(metadata={"incident_id": incident_id})
