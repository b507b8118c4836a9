"""Calls of the credit service's methods over ``grpc.aio``, with deadlines and retries.

``sync_calls.py`` is made of this file by ``python -m tollmesh.client.unasync``; a test demands
that it is what this file gives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from tollmesh.client import errors
from tollmesh.client.async_debits import AsyncDebits
from tollmesh.client.batches import PATH
from tollmesh.client.errors import ClientClosed, TollmeshError
from tollmesh.client.options import Batching, Retries, Tls, channel_options
from tollmesh.client.retrying import Attempts, Budget
from tollmesh.credits.v1 import credits_pb2 as pb

Answer = TypeVar("Answer", bound=Message)


class AsyncCalls:
    """A channel that is opened by the first call, and what goes over it."""

    def __init__(
        self,
        target: str,
        tls: Tls | None,
        deadline_s: float,
        metadata: Mapping[str, str],
        retries: Retries,
        batching: Batching,
    ) -> None:
        self._target = target
        self._tls = tls
        self._deadline_s = deadline_s
        self.metadata = tuple(metadata.items())
        self.retries = retries
        self._batching = batching
        self.budget = Budget(retries)
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, Any] = {}
        self._debits: AsyncDebits | None = None
        self._closed = False

    async def call(
        self, path: str, request: Message, answer: type[Answer], deadline_s: float | None
    ) -> Answer:
        """One call with one answer; sent again as ``retrying`` says. Raises TollmeshError."""
        method = self._method(path, answer)
        attempts = self.attempts(deadline_s)
        while True:
            try:
                response: Answer = await method(
                    request, timeout=attempts.timeout_s(), metadata=self.metadata
                )
            except grpc.RpcError as failure:
                error = errors.of_rpc(failure)
            except asyncio.CancelledError:
                if not _is_cancelled():
                    self._raise_if_closed()
                raise
            else:
                return response
            error.request_id = getattr(request, "request_id", "")
            await self.pause(attempts, error)

    def attempts(self, deadline_s: float | None) -> Attempts:
        """Of a call that begins now, or of one that goes on."""
        return Attempts(self.retries, self.budget, self.deadline(deadline_s))

    async def pause(self, attempts: Attempts, error: TollmeshError) -> None:
        """Waits before a call is sent again. Raises ``error`` when it is not, and ClientClosed."""
        self._raise_if_closed()
        pause_s = attempts.pause_s(error)
        if pause_s is None:
            raise error
        await asyncio.sleep(pause_s)

    async def stream(
        self, path: str, request: Message, answer: type[Answer], deadline_s: float | None
    ) -> AsyncIterator[Answer]:
        """One call with a stream of answers, not repeated here; no deadline unless given."""
        channel = self.channel()
        method: Any = channel.unary_stream(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        call = method(request, timeout=deadline_s, metadata=self.metadata)
        try:
            async for response in call:
                yield response
        except grpc.RpcError as failure:
            raise errors.of_rpc(failure) from failure
        except asyncio.CancelledError:
            if not _is_cancelled():
                self._raise_if_closed()
            raise
        finally:
            call.cancel()

    def debits(self) -> AsyncDebits:
        """What lets debits travel together."""
        if self._debits is None:
            self.channel()
            self._debits = AsyncDebits(self._send_batch, self._batching, self.retries, self.budget)
        return self._debits

    def deadline(self, deadline_s: float | None) -> float:
        """Of a call that begins now, as ``time.monotonic()`` counts."""
        return time.monotonic() + (self._deadline_s if deadline_s is None else deadline_s)

    async def close(self, grace_s: float) -> None:
        """Lets debits under way finish for so long, and closes the channel."""
        if self._debits is not None:
            await self._debits.close(grace_s)
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def _send_batch(self, payload: bytes, timeout_s: float) -> pb.BatchDebitResponse:
        send = self._methods[PATH]
        response: pb.BatchDebitResponse = await send(
            payload, timeout=timeout_s, metadata=self.metadata
        )
        return response

    def channel(self) -> grpc.aio.Channel:
        """The channel; opened by the first call. Raises ClientClosed."""
        self._raise_if_closed()
        if self._channel is None:
            options = channel_options(self._tls)
            if self._tls is None:
                self._channel = grpc.aio.insecure_channel(self._target, options)
            else:
                credentials = self._tls.credentials()
                self._channel = grpc.aio.secure_channel(self._target, credentials, options)
            self._methods[PATH] = self._channel.unary_unary(
                PATH, response_deserializer=pb.BatchDebitResponse.FromString
            )
        return self._channel

    def _raise_if_closed(self) -> None:
        """Tells whoever waits for a channel that was closed; grpc.aio cancels them."""
        if self._closed:
            raise ClientClosed

    def _method(self, path: str, answer: type[Message]) -> Any:  # noqa: ANN401 (of any message)
        channel = self.channel()
        method = self._methods.get(f"{path}:")
        if method is None:
            method = self._methods[f"{path}:"] = channel.unary_unary(
                path,
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=answer.FromString,
            )
        return method


def _is_cancelled() -> bool:
    """Whether the caller's own task was, and not only the call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
