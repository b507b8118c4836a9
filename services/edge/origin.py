"""The chain service as the edge uses it: where bytes come from and where uploads go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tollmesh.chain.v1 import chain_pb2 as pb

from services.chain.errors import NetworkUnavailableError, ObjectCorruptError
from services.edge.ahead import AHEAD_BYTES, Cancellable, Opened, ReadsAhead
from services.edge.behind import Behind
from services.edge.objects import ObjectInfo, ObjectKey
from services.process.logs import get_logger
from services.rpc.errors import (
    DeadlineExceededError,
    DependencyUnavailableError,
    NoAnswerError,
    OverloadedError,
    ServiceError,
    ShuttingDownError,
    StoreUnavailableError,
)

if TYPE_CHECKING:  # the type has no class at run time
    from tollmesh.chain.v1.chain_pb2_grpc import ChainServiceAsyncStub

log = get_logger(__name__)

WORTH_A_RETRY = (
    NetworkUnavailableError,
    DependencyUnavailableError,
    OverloadedError,
    ShuttingDownError,
    StoreUnavailableError,
)
_ATTEMPTS = 3
_BACKOFF_S = 0.1
_NETWORKS = 256
_PUBLISH_S = 60.0
"""How long the chain service may take no more of a file, and to store it when it has all."""
_STAT_S = 5.0


class _SilentError(DependencyUnavailableError):
    """A service that this one needs went silent."""


@dataclass(frozen=True, slots=True)
class Publication:
    """How far an upload has come on its way to the chain."""

    key: ObjectKey
    state: str
    """``pending``, ``published``, ``finalized`` or ``failed``."""
    size_bytes: int
    nodes_total: int
    nodes_published: int
    nodes_finalized: int
    update_time: datetime | None
    message: str


class Origin:
    """The chain service. Its errors come through as they are.

    Args:
        stub: the service; calls without an end of their own are bounded here.
        idle_s: how long it may be silent amid an object.
    """

    def __init__(self, stub: ChainServiceAsyncStub, *, idle_s: float) -> None:
        self._stub = stub
        self._idle_s = idle_s
        self._networks: dict[str, Behind] = {}
        self._ahead = ReadsAhead()

    async def stat(self, key: ObjectKey, *, ahead: bool = False) -> ObjectInfo:
        """What the chain knows of an object now. Raises OBJECT_NOT_FOUND and others.

        With ``ahead`` the bytes are asked for in the same call: a ``read`` of all of them that
        follows soon goes on with it.
        """
        behind = self._of(key.network)
        if ahead and not behind.is_suspect:
            opened = await behind.ask(lambda: self._opened(key))
            self._ahead.put(key, opened)
            return _info(key, opened.found)
        request = pb.StatObjectRequest(network=key.network, cid=key.cid)
        return _info(key, (await behind.ask(lambda: self._stub.StatObject(request))).object)

    async def read(self, key: ObjectKey, first: int, length: int) -> AsyncGenerator[bytes]:
        """Exactly ``length`` verified bytes from ``first``, in pieces.

        Goes on from the byte reached when the service falters, a few times without progress; one
        that is silent from the beginning is not waited for again.
        """
        position, end, attempts = first, first + length, 0
        while position < end:
            try:
                async with aclosing(self._stream(key, position, end - position)) as stream:
                    async for data in stream:
                        position += len(data)
                        attempts = 0
                        yield data
                if position < end:
                    raise DependencyUnavailableError("The chain service ended an object early.")
            except WORTH_A_RETRY as error:
                attempts += 1
                is_silent = isinstance(error, _SilentError) and (attempts > 1 or position == first)
                if attempts == _ATTEMPTS or is_silent:
                    raise
                log.info("origin_read_retried", object=str(key), reason=error.reason_name())
                await asyncio.sleep(_BACKOFF_S * 2**attempts * random.uniform(0.5, 1))  # noqa: S311 (jitter)

    async def publish(
        self, request_id: str, network: str, name: str, size_bytes: int, body: AsyncIterator[bytes]
    ) -> Publication:
        """Hands a file to the chain service; it is stored there when this returns.

        Idempotent by ``request_id``. Raises the service's errors, and what ``body`` raises.
        """
        header = pb.PublishObjectHeader(
            request_id=request_id,
            network=network,
            name=name or None,
            size_bytes=size_bytes,
        )

        loop = asyncio.get_running_loop()

        async def requests() -> AsyncIterator[pb.PublishObjectRequest]:
            yield pb.PublishObjectRequest(header=header)
            async for data in body:
                if not patience.expired():
                    patience.reschedule(loop.time() + _PUBLISH_S)
                yield pb.PublishObjectRequest(data=data)

        try:
            async with asyncio.timeout(_PUBLISH_S) as patience:
                answer = await self._stub.PublishObject(requests())
        except TimeoutError as error:
            self._of(network).hung()
            raise DependencyUnavailableError("The chain service went silent.") from error
        return _publication(network, answer.publication)

    async def publication(self, key: ObjectKey) -> Publication:
        """How far an upload has come. Raises PUBLICATION_NOT_FOUND and others."""
        request = pb.GetPublicationRequest(network=key.network, cid=key.cid)
        answer = await self._of(key.network).ask(lambda: self._stub.GetPublication(request))
        return _publication(key.network, answer.publication)

    def close(self) -> None:
        """Ends reads that nobody took up."""
        self._ahead.close()

    def _begun(
        self, key: ObjectKey, first: int, length: int
    ) -> tuple[Cancellable, AsyncIterator[pb.ReadObjectResponse]]:
        request = pb.ReadObjectRequest(
            network=key.network, cid=key.cid, offset=first, length=length
        )
        call = self._stub.ReadObject(request)
        return call, aiter(call)

    async def _opened(self, key: ObjectKey) -> Opened:
        """Begins to read an object; returns when it is known which."""
        call, answers = self._begun(key, 0, AHEAD_BYTES)
        try:
            async with asyncio.timeout(_STAT_S):
                answer = await anext(answers, None)
        except TimeoutError as error:
            call.cancel()
            raise NoAnswerError from error
        except BaseException:
            call.cancel()
            raise
        if answer is None:
            raise DependencyUnavailableError("The chain service said nothing of an object.")
        return Opened(call, answers, answer.object)

    def _of(self, network: str) -> Behind:
        """What stands before a network: one that hangs does not keep readers of another."""
        if network not in self._networks and len(self._networks) >= _NETWORKS:
            self._networks.clear()  # of names that callers made up
        return self._networks.setdefault(network, Behind(f"chain/{network}"))

    async def _stream(self, key: ObjectKey, first: int, length: int) -> AsyncGenerator[bytes]:
        opened = self._ahead.take(key, first, length)
        if opened is not None:
            call, answers, _ = opened
            async for data in self._data(key, call, answers, min(length, AHEAD_BYTES)):
                first, length = first + len(data), length - len(data)
                yield data
        if not length:
            return
        if self._of(key.network).is_suspect:
            await self.stat(key)
        call, answers = self._begun(key, first, length)
        async for data in self._data(key, call, answers, length):
            yield data

    async def _data(
        self,
        key: ObjectKey,
        call: Cancellable,
        answers: AsyncIterator[pb.ReadObjectResponse],
        length: int,
    ) -> AsyncGenerator[bytes]:
        """What a call brings, which it ends; at most ``length`` bytes."""
        behind = self._of(key.network)
        try:
            while True:
                async with asyncio.timeout(self._idle_s):
                    answer = await anext(answers, None)
                if answer is None:
                    return
                behind.answered()
                if len(answer.data) > length:
                    raise ObjectCorruptError
                length -= len(answer.data)
                if answer.data:
                    yield answer.data
        except TimeoutError as error:
            behind.hung()
            raise _SilentError("The chain service went silent.") from error
        finally:
            call.cancel()


def _info(key: ObjectKey, found: pb.ObjectInfo) -> ObjectInfo:
    return ObjectInfo(
        cid=key.cid,
        size_bytes=found.size_bytes,
        name=found.name,
        media_type=found.media_type,
        compressed=found.compressed,
        encrypted=found.encrypted,
        finalized=found.finality == pb.FINALITY_FINALIZED,
    )


def is_retryable(error: ServiceError) -> bool:
    """Whether the same call may succeed shortly (its outcome may be unknown)."""
    return isinstance(error, (*WORTH_A_RETRY, DeadlineExceededError))


def _publication(network: str, found: pb.Publication) -> Publication:
    state = pb.PublicationState.Name(found.state).removeprefix("PUBLICATION_STATE_").lower()
    return Publication(
        key=ObjectKey(network, found.cid),
        state=state,
        size_bytes=found.size_bytes,
        nodes_total=found.nodes_total,
        nodes_published=found.nodes_published,
        nodes_finalized=found.nodes_finalized,
        update_time=found.update_time.ToDatetime() if found.HasField("update_time") else None,
        message=found.message,
    )
