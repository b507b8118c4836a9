"""What concurrent clients of the credit service asked, when, and what they were told.

A history is recorded over gRPC and judged by ``tests/support/history_check.py``. A ``BatchDebit``,
or a message of ``StreamDebits``, is as many calls as it has debits, with the same times.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tollmesh.credits.v1 import credits_pb2 as pb

from services.rpc.errors import ServiceError

Message = Any
"""A request or answer of the contract, whichever."""
Stub = Any
"""Of the credit contract."""
NEVER = 2**63 - 1

REFUSALS = {
    "INSUFFICIENT_CREDIT",
    "HOLD_NOT_OPEN",
    "HOLD_NOT_FOUND",
    "GRANT_NOT_OPEN",
    "GRANT_NOT_FOUND",
    "ENTRY_NOT_FOUND",
    "REFUND_EXCEEDS_ENTRY",
    "LEASE_NOT_OWNED",
    "METER_UNKNOWN",
    "AMOUNT_OUT_OF_RANGE",
    "ACCOUNT_FULL",
    "INVALID_ARGUMENT",
    "REQUEST_ID_REUSED",
    "BATCH_ABORTED",
}
UNKNOWN = {
    "DEPENDENCY_UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "STORE_UNAVAILABLE",
    "SHUTTING_DOWN",
    "OVERLOADED",
}
"""After these the caller does not know whether its request was applied."""


@dataclass
class Call:
    """One attempt. With neither answer nor refusal its outcome is unknown, and its end never."""

    number: int
    method: str
    request: Message
    start: int
    end: int = NEVER
    answer: Message | None = None
    refusal: tuple[str, dict[str, str]] | None = None
    together: int | None = None
    """Number of the ``all_or_nothing`` batch that it is part of."""
    nows_us: tuple[int, ...] = ()
    """What the service's clock said meanwhile, if that is known."""

    @property
    def account_id(self) -> str:
        account_id: str = self.request.account_id
        return account_id

    @property
    def request_id(self) -> str:
        """Empty for a read."""
        return getattr(self.request, "request_id", "")

    @property
    def version(self) -> int | None:
        """Of its answer."""
        return None if self.answer is None else int(self.answer.version)

    @property
    def fresh(self) -> bool:
        """Whether it says that it changed something."""
        return self.answer is not None and bool(self.request_id) and not self.answer.replayed

    @property
    def unknown(self) -> bool:
        return self.answer is None and self.refusal is None

    def __str__(self) -> str:
        return f"call {self.number}, {self.method} {self.request_id} of {self.account_id}"


@dataclass
class History:
    """Calls, and the ledger of each account after all of them."""

    calls: list[Call] = field(default_factory=list)
    ledgers: dict[str, list[pb.Entry]] = field(default_factory=dict)
    clock: Callable[[], int] = time.monotonic_ns
    """No two moments, one after the other, are the same."""
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def copy(self) -> History:
        """One that can be falsified."""
        return History(copy.deepcopy(self.calls), copy.deepcopy(self.ledgers))

    async def call(self, stub: Stub, method: str, request: Message) -> list[Call]:
        """Calls and records; other errors than refusals and unknown outcomes are raised."""
        number = next(self._numbers)
        many = method in {"BatchDebit", "StreamDebits"}
        parts = request.debits if many else [request]
        name = "Debit" if many else method
        together = number if method == "BatchDebit" and request.all_or_nothing else None
        start = self.clock()
        calls = [Call(number, name, part, start, together=together) for part in parts]
        self.calls += calls
        try:
            answer = await getattr(stub, method)(request)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return calls  # not the client: its channel was closed
        except ServiceError as error:
            reason = error.reason_name()
            if reason in UNKNOWN:
                return calls
            if reason not in REFUSALS:
                raise
            self._note(calls, [(reason, dict(error.metadata))])
        else:
            outcomes = map(_outcome, answer.outcomes) if many else [answer]
            self._note(calls, outcomes)
        return calls

    def _note(self, calls: list[Call], outcomes: Iterable[Message]) -> None:
        end = self.clock()
        for call, outcome in zip(calls, outcomes, strict=True):
            if isinstance(outcome, tuple):
                if outcome[0] in UNKNOWN:
                    continue
                assert outcome[0] in REFUSALS, f"{call}: {outcome}"
                call.refusal = outcome
            else:
                call.answer = outcome
            call.end = end

    async def read_ledgers(self, stub: Stub, account_ids: Iterable[str]) -> None:
        """Reads every ledger whole; nothing may be under way."""
        for account_id in account_ids:
            ledger, token = self.ledgers.setdefault(account_id, []), ""
            while True:
                request = pb.ListEntriesRequest(
                    account_id=account_id, page_size=1000, page_token=token
                )
                page = await stub.ListEntries(request)
                ledger += page.entries
                if not (token := page.next_page_token):
                    break


class Target:
    """The service that clients call; it may be down for a while."""

    def __init__(self) -> None:
        self._stub: Stub = None
        self._up = asyncio.Event()

    def set(self, stub: Stub) -> None:
        """The service is up."""
        self._stub = stub
        self._up.set()

    def clear(self) -> None:
        """It is about to be killed."""
        self._up.clear()

    async def stub(self) -> Stub:
        """Waits until it is up."""
        await self._up.wait()
        return self._stub


def _outcome(outcome: pb.DebitOutcome) -> Message:
    if outcome.WhichOneof("outcome") == "debit":
        return outcome.debit
    return outcome.error.reason, dict(outcome.error.metadata)
