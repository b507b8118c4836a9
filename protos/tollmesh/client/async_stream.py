"""A stream of debits: sent in order, applied in order, outcomes in order, none left out.

It lives longer than its connection: when a call of StreamDebits breaks or stalls, the debits that
have no outcome go again, in their order and with their request ids, on a new one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple, Self

import grpc

from tollmesh.client import errors, requests
from tollmesh.client.async_calls import AsyncCalls
from tollmesh.client.batches import frame
from tollmesh.client.errors import ClientClosed, DeadlineExceeded, TollmeshError
from tollmesh.client.requests import Metered
from tollmesh.client.retrying import Attempts
from tollmesh.credits.v1 import credits_pb2 as pb

PATH = "/tollmesh.credits.v1.CreditService/StreamDebits"
_MOST = 1000
"""Debits in a message, as the contract has it."""


class StreamedDebit(NamedTuple):
    """A debit of a stream and what became of it: an answer or an error."""

    request_id: str
    answer: pb.DebitResponse | None
    error: TollmeshError | None

    def result(self) -> pb.DebitResponse:
        """The answer; raises the debit's error."""
        if self.error is not None:
            raise self.error
        assert self.answer is not None  # noqa: S101 (one of the two)
        return self.answer


class _Sent(NamedTuple):
    """A debit without an outcome."""

    request: pb.DebitRequest
    frame: bytes


class AsyncDebitStream:
    """Use as ``async with client.debit_stream() as stream``; one task sends, another iterates."""

    def __init__(self, calls: AsyncCalls, window: int, deadline_s: float | None) -> None:
        self._calls = calls
        self._window = window
        self._deadline_s = deadline_s
        self._unanswered: deque[_Sent] = deque()
        self._sent = 0
        """How many of them, from the left, are on the present call."""
        self._most = _MOST
        self._answered: deque[StreamedDebit] = deque()
        self._ended = False
        self._failure: TollmeshError | None = None
        self._progress_at = 0.0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._news = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stops. What has no outcome by then may have been applied or not."""
        self._fail(ClientClosed())
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def send(
        self,
        account_id: str,
        amount: int | None = None,
        *,
        metered: Metered | None = None,
        currency: str = "",
        resource: str = "",
        request_id: str | None = None,
    ) -> str:
        """Sends a debit on its way and gives its request id.

        Waits while ``window`` debits have no outcome that was taken. Raises what ended the stream.
        """
        request = requests.debit(account_id, amount, metered, currency, resource, request_id)
        while self._failure is None and self._under_way() >= self._window:
            self._room.clear()
            await self._room.wait()
        if self._ended:
            raise RuntimeError("the stream was ended: nothing more can be sent")
        if self._failure is not None:
            raise self._failure
        if not self._unanswered:
            self._progress_at = time.monotonic()
        self._unanswered.append(_Sent(request, frame(request)))
        self._more.set()
        return request.request_id

    def end(self) -> None:
        """Says that nothing more will be sent: the iteration ends with the last outcome."""
        self._ended = True
        self._more.set()

    @property
    def unanswered(self) -> list[pb.DebitRequest]:
        """What has no outcome, in order; after a failure, repeat it with the same request ids."""
        return [sent.request for sent in self._unanswered]

    async def __aiter__(self) -> AsyncIterator[StreamedDebit]:
        """The outcomes in the order of the debits. Raises what ended the stream before its end."""
        while True:
            while self._answered:
                outcome = self._answered.popleft()
                self._room.set()
                yield outcome
            if self._failure is not None:
                raise self._failure
            if self._is_done():
                return
            self._news.clear()
            await self._news.wait()

    def _under_way(self) -> int:
        return len(self._unanswered) + len(self._answered)

    def _is_done(self) -> bool:
        return self._ended and not self._unanswered

    async def _run(self) -> None:
        try:
            await self._call_on()
        except TollmeshError as error:
            self._fail(error)
        except Exception as fault:  # noqa: BLE001 (who iterates must hear of any fault)
            self._fail(TollmeshError(f"a fault of the client: {fault!r}"))
        self._news.set()

    async def _call_on(self) -> None:
        """Calls while there is something to send; a call that fails is followed by another.

        Raises what ends the stream: no outcome came for the deadline, or to repeat is no use.
        """
        attempts, heard_at = None, -1.0
        while not self._is_done():
            if not self._unanswered:
                self._more.clear()
                await self._more.wait()
                continue
            error = await self._exchange()
            if error is None or not self._unanswered or self._is_invalid(error):
                continue
            if attempts is None or self._progress_at != heard_at:
                heard_at, deadline = self._progress_at, self._calls.deadline(self._deadline_s)
                attempts = Attempts(self._calls.retries, self._calls.budget, deadline)
            pause_s = attempts.pause_s(error)
            if pause_s is None:
                raise error
            await asyncio.sleep(pause_s)

    async def _exchange(self) -> TollmeshError | None:
        """One call; gives what broke it, or None when it came to its end."""
        method: Any = self._calls.channel().stream_stream(
            PATH, response_deserializer=pb.StreamDebitsResponse.FromString
        )
        call = method(metadata=self._calls.metadata)
        self._sent = 0
        tasks = [asyncio.create_task(self._read(call)), asyncio.create_task(self._write(call))]
        reading = tasks[0]
        begun_at = time.monotonic()
        try:
            while not reading.done():
                await asyncio.wait([reading], timeout=self._calls.retries.attempt_s / 4)
                if not reading.done() and self._is_stalled(begun_at):
                    return DeadlineExceeded("no outcome came in time")
            if reading.cancelled():  # as grpcio tells of a channel that is closed
                return TollmeshError("the channel was closed", code=grpc.StatusCode.CANCELLED)
            return reading.result()
        finally:
            call.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _is_stalled(self, begun_at: float) -> bool:
        heard_at = max(begun_at, self._progress_at)
        waits_s = time.monotonic() - heard_at
        return bool(self._unanswered) and waits_s > self._calls.retries.attempt_s

    async def _write(self, call: Any) -> None:  # noqa: ANN401 (grpcio's call has no public type)
        while True:
            part = list(islice(self._unanswered, self._sent, self._sent + self._most))
            if part:
                self._sent += len(part)
                await call.write(b"".join([sent.frame for sent in part]))
            elif self._ended:
                await call.done_writing()
                return
            else:
                self._more.clear()
                await self._more.wait()

    async def _read(self, call: Any) -> TollmeshError | None:  # noqa: ANN401 (as above)
        try:
            async for response in call:
                self._take_in(response)
        except grpc.RpcError as failure:
            return errors.of_rpc(failure)
        if self._unanswered or not self._ended:
            return TollmeshError("the service ended the stream", code=grpc.StatusCode.UNAVAILABLE)
        return None

    def _take_in(self, response: pb.StreamDebitsResponse) -> None:
        for outcome in response.outcomes:
            request = self._unanswered.popleft().request
            if outcome.HasField("debit"):
                self._answer(request, outcome.debit, None)
            else:
                self._answer(request, None, errors.of_outcome(outcome.error))
        self._sent -= len(response.outcomes)
        self._progress_at = time.monotonic()
        self._news.set()

    def _answer(
        self, request: pb.DebitRequest, answer: pb.DebitResponse | None, error: TollmeshError | None
    ) -> None:
        if error is not None:
            error.request_id = request.request_id
        self._answered.append(StreamedDebit(request.request_id, answer, error))

    def _is_invalid(self, error: TollmeshError) -> bool:
        """Deals with a message that breaks a rule of the contract; False for any other error.

        All before it have their outcomes. Its debits go again one a message, until the one at
        fault is the first without an outcome: then this is its outcome.
        """
        if error.reason != "INVALID_ARGUMENT" or not self._unanswered:
            return False
        if self._most > 1 and len(self._unanswered) > 1:
            self._most = 1
        else:
            self._most = _MOST
            self._answer(self._unanswered.popleft().request, None, error)
            self._progress_at = time.monotonic()
            self._news.set()
        return True

    def _fail(self, error: TollmeshError) -> None:
        if self._failure is None and not self._is_done():
            self._failure = error
        self._news.set()
        self._room.set()
