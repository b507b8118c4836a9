"""A chain service that serves given bytes: a real gRPC server, with pace and failures on demand."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tollmesh.chain.v1 import chain_pb2 as pb
from tollmesh.chain.v1.chain_pb2_grpc import ChainServiceServicer

from services.chain.errors import (
    NetworkNotFoundError,
    ObjectNotFoundError,
    PublicationNotFoundError,
    RangeNotSatisfiableError,
)
from services.rpc.call import Call
from services.rpc.errors import RequestIdReusedError, ServiceError
from services.rpc.server import Server

NETWORK = "evm-test"
OTHER_NETWORK = "evm-other"
CHUNK_BYTES = 65_066


def cid_of(data: bytes) -> str:
    """A CID by its form; of a digest of the data, so that other data has another one."""
    raw = bytes.fromhex("01551f20") + hashlib.sha256(data).digest()
    return "b" + base64.b32encode(raw).decode().lower().rstrip("=")


@dataclass(eq=False)
class FakeObject:
    """An object and how it behaves."""

    data: bytes
    name: str = "sample.bin"
    media_type: str = "application/octet-stream"
    finality: pb.Finality.ValueType = pb.FINALITY_FINALIZED
    networks: frozenset[str] = frozenset({NETWORK})
    flow: asyncio.Event = field(default_factory=asyncio.Event)
    """While cleared, reads stop before the byte ``pause_at``."""
    pause_at: int | None = None
    failures: list[tuple[int, ServiceError]] = field(default_factory=list)
    """Reads fail, one after the other, before the byte of the first of these."""

    def __post_init__(self) -> None:
        self.flow.set()

    def pause(self, at: int) -> None:
        """From now on reads stop before the byte ``at``, until ``resume``."""
        self.pause_at = at
        self.flow.clear()

    def resume(self) -> None:
        """Lets reads go on."""
        self.flow.set()


class FakeChain(ChainServiceServicer):
    """The servicer, and what it saw."""

    def __init__(self) -> None:
        self.objects: dict[str, FakeObject] = {}
        self.reads: list[tuple[str, int, int]] = []
        """CID, offset and length of every ReadObject."""
        self.reading = 0
        """ReadObject calls under way."""
        self.stats: Counter[str] = Counter()
        self.calls: list[Call] = []
        """Of every StatObject."""
        self.away_s = 0.0
        """How long a question takes to arrive."""
        self.stat_failure: ServiceError | None = None
        self.publish_failures: list[ServiceError] = []
        self.published: dict[str, tuple[str, bytes, str]] = {}
        """By request id: CID, bytes and name."""
        self.states: dict[str, pb.PublicationState.ValueType] = {}

    def add(self, data: bytes, **facts: object) -> str:
        """Puts an object on the chain; its CID."""
        cid = cid_of(data)
        self.objects[cid] = FakeObject(data, **facts)  # type: ignore[arg-type]  # FakeObject's own
        return cid

    async def ListNetworks(  # noqa: N802 (the contract's name)
        self,
        request: pb.ListNetworksRequest,  # noqa: ARG002 (the contract's signature)
        context: object,  # noqa: ARG002 (the contract's signature)
    ) -> pb.ListNetworksResponse:
        names = (NETWORK, OTHER_NETWORK)
        return pb.ListNetworksResponse(networks=[pb.Network(name=name) for name in names])

    async def GetHead(  # noqa: N802 (the contract's name)
        self,
        request: pb.GetHeadRequest,  # noqa: ARG002 (the contract's signature)
        context: object,  # noqa: ARG002 (the contract's signature)
    ) -> pb.GetHeadResponse:
        return pb.GetHeadResponse()

    async def StatObject(  # noqa: N802 (the contract's name)
        self,
        request: pb.StatObjectRequest,
        context: object,
    ) -> pb.StatObjectResponse:
        await asyncio.sleep(self.away_s)
        self.calls.append(Call.of(context))
        self.stats[request.cid] += 1
        if self.stat_failure is not None:
            raise self.stat_failure
        found = self._find(request.network, request.cid)
        return pb.StatObjectResponse(object=_info(request.cid, found))

    async def ReadObject(  # noqa: N802 (the contract's name)
        self,
        request: pb.ReadObjectRequest,
        context: object,  # noqa: ARG002 (the contract's signature)
    ) -> AsyncIterator[pb.ReadObjectResponse]:
        await asyncio.sleep(self.away_s)
        found = self._find(request.network, request.cid)
        size = len(found.data)
        if request.offset > size:
            raise RangeNotSatisfiableError(metadata={"size_bytes": str(size)})
        length = request.length if request.HasField("length") else size
        end = min(size, request.offset + length)
        self.reads.append((request.cid, request.offset, end - request.offset))
        self.reading += 1
        try:
            yield pb.ReadObjectResponse(object=_info(request.cid, found))
            position = request.offset
            while position < end:
                data = await _next(found, position, end)
                yield pb.ReadObjectResponse(data=data)
                position += len(data)
        finally:
            self.reading -= 1

    async def PublishObject(  # noqa: N802 (the contract's name)
        self,
        request_iterator: AsyncIterator[pb.PublishObjectRequest],
        context: object,  # noqa: ARG002 (the contract's signature)
    ) -> pb.PublishObjectResponse:
        header, parts = pb.PublishObjectHeader(), []
        async for request in request_iterator:
            if request.WhichOneof("part") == "header":
                header = request.header
            else:
                parts.append(request.data)
        if self.publish_failures:
            raise self.publish_failures.pop(0)
        data = b"".join(parts)
        assert len(data) == header.size_bytes
        replayed = header.request_id in self.published
        content = (cid_of(data), data, header.name)
        if replayed and self.published[header.request_id] != content:
            raise RequestIdReusedError
        self.published[header.request_id] = content
        cid = content[0]
        self.add(data, name=header.name, finality=pb.FINALITY_LATEST)
        self.states[cid] = pb.PUBLICATION_STATE_PENDING
        return pb.PublishObjectResponse(
            cid=cid,
            size_bytes=len(data),
            publication=self._publication(header.network, cid),
            replayed=replayed,
        )

    async def GetPublication(  # noqa: N802 (the contract's name)
        self,
        request: pb.GetPublicationRequest,
        context: object,  # noqa: ARG002 (the contract's signature)
    ) -> pb.GetPublicationResponse:
        if request.cid not in self.states:
            raise PublicationNotFoundError
        return pb.GetPublicationResponse(
            publication=self._publication(request.network, request.cid)
        )

    def _publication(self, network: str, cid: str) -> pb.Publication:
        publication = pb.Publication(
            cid=cid,
            network=network,
            state=self.states[cid],
            nodes_total=1,
            size_bytes=len(self.objects[cid].data),
        )
        publication.update_time.GetCurrentTime()
        return publication

    def _find(self, network: str, cid: str) -> FakeObject:
        if network not in {NETWORK, OTHER_NETWORK}:
            raise NetworkNotFoundError
        found = self.objects.get(cid)
        if found is None or network not in found.networks:
            raise ObjectNotFoundError
        return found


def _info(cid: str, found: FakeObject) -> pb.ObjectInfo:
    return pb.ObjectInfo(
        cid=cid,
        size_bytes=len(found.data),
        name=found.name,
        media_type=found.media_type,
        finality=found.finality,
    )


async def _next(found: FakeObject, position: int, end: int) -> bytes:
    """The next chunk, when it may go; raises the failure that stands before it."""
    stop = min(end, position + CHUNK_BYTES)
    if found.failures and found.failures[0][0] <= position:
        raise found.failures.pop(0)[1]
    if found.failures:
        stop = min(stop, found.failures[0][0])
    if found.pause_at is not None and not found.flow.is_set():
        if found.pause_at <= position:
            await found.flow.wait()
        else:
            stop = min(stop, found.pause_at)
    return found.data[position:stop]


@asynccontextmanager
async def running_fake_chain(chain: FakeChain, listen: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Serves until the block ends; gives the address."""
    server = Server(listen=listen, servicers=[chain], drain_s=0.5)
    async with server:
        yield server.address
