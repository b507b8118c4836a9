"""A real chain service in the test's own process, as its composition root builds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
from tollmesh.chain.v1 import chain_pb2 as pb
from tollmesh.chain.v1 import chain_pb2_grpc as pb_grpc

from services.chain.__main__ import serve
from services.chain.errors import ERRORS
from services.chain.settings import ChainSettings
from services.rpc.client import connect
from tests.support.anvil import CHAIN_ID, FUNDED_KEY
from tests.support.deadline import DEADLINE_S

NETWORK = "evm-local"
INBOX = "0x746f6c6c6d657368000000000000000000000001"
PIECE_BYTES = 500_000

T = TypeVar("T")


def chain_settings(directory: Path, *endpoints: str, **network: object) -> dict[str, Any]:
    """Settings of a service with one network; ``network`` adds to that network's."""
    key_file = directory / "publisher.key"
    key_file.write_text(FUNDED_KEY)
    return {
        "store": f"lmdb://{directory}/index",
        "spool_dir": str(directory / "spool"),
        "poll_s": 0.05,
        "drain_s": 0.2,
        "networks": {
            NETWORK: {
                "kind": "evm",
                "endpoints": list(endpoints),
                "inbox_address": INBOX,
                "chain_id": CHAIN_ID,
                "private_key_file": str(key_file),
                "timeout_s": 2.0,
                **network,
            }
        },
    }


@dataclass(frozen=True)
class ChainClient:
    """Typed calls to the service, with what a test usually means as defaults."""

    channel: grpc.aio.Channel

    @property
    def stub(self) -> pb_grpc.ChainServiceAsyncStub:
        return pb_grpc.ChainServiceStub(self.channel)

    async def publish(
        self, data: bytes, name: str | None = None, *, request_id: str = "publish-1"
    ) -> pb.PublishObjectResponse:
        """Publishes a file in pieces."""
        header = pb.PublishObjectHeader(
            request_id=request_id, network=NETWORK, name=name, size_bytes=len(data)
        )
        return await self.stub.PublishObject(upload(header, data))

    async def publication(self, cid: str) -> pb.Publication:
        request = pb.GetPublicationRequest(network=NETWORK, cid=cid)
        return (await self.stub.GetPublication(request)).publication

    async def stat(self, cid: str) -> pb.ObjectInfo:
        request = pb.StatObjectRequest(network=NETWORK, cid=cid)
        return (await self.stub.StatObject(request)).object

    async def read(
        self, cid: str, offset: int = 0, length: int | None = None
    ) -> tuple[pb.ObjectInfo, bytes]:
        """The header and all bytes of a range."""
        request = pb.ReadObjectRequest(network=NETWORK, cid=cid, offset=offset, length=length)
        answers = [answer async for answer in self.stub.ReadObject(request)]
        return answers[0].object, b"".join(answer.data for answer in answers[1:])

    async def head(self) -> pb.GetHeadResponse:
        return await self.stub.GetHead(pb.GetHeadRequest(network=NETWORK))

    async def until_indexed(self) -> int:
        """Waits until the index holds the newest block; its number."""
        head = await until(
            self.head, lambda head: head.indexed.number >= head.latest.number, "the index follows"
        )
        return head.latest.number

    async def until_state(
        self,
        cid: str,
        state: pb.PublicationState.ValueType,
        every: Callable[[], Awaitable[None]] | None = None,
    ) -> pb.Publication:
        """Waits until a publication has a state; ``every`` is awaited before each look."""

        async def look() -> pb.Publication:
            if every is not None:
                await every()
            return await self.publication(cid)

        name = pb.PublicationState.Name(state)
        return await until(look, lambda publication: publication.state == state, name)


def upload(header: pb.PublishObjectHeader, data: bytes) -> Iterator[pb.PublishObjectRequest]:
    """The requests of an upload."""
    yield pb.PublishObjectRequest(header=header)
    for at in range(0, len(data), PIECE_BYTES):
        yield pb.PublishObjectRequest(data=data[at : at + PIECE_BYTES])


async def until(
    look: Callable[[], Awaitable[T]],
    good: Callable[[T], object],
    what: str,
    deadline_s: float = DEADLINE_S,
) -> T:
    """Looks until what is seen is good; fails, with what was seen last, after the deadline."""
    deadline = asyncio.get_running_loop().time() + deadline_s
    seen = await look()
    while not good(seen):
        late = asyncio.get_running_loop().time() > deadline
        assert not late, f"not in {deadline_s} s: {what}; last seen: {seen}"
        await asyncio.sleep(0.02)
        seen = await look()
    return seen


@asynccontextmanager
async def running_chain_service(settings: dict[str, Any]) -> AsyncIterator[ChainClient]:
    """Serves until the block ends."""
    directory = Path(settings["spool_dir"]).parent
    ready_file = directory / "ready"
    ready_file.unlink(missing_ok=True)
    stop = asyncio.Event()
    parsed = ChainSettings.model_validate({**settings, "ready_file": ready_file})
    service = asyncio.create_task(serve(parsed, stop))
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not ready_file.exists():
                assert not service.done(), service.result()
                await asyncio.sleep(0.01)
        async with connect(ready_file.read_text().strip(), errors=ERRORS) as channel:
            yield ChainClient(channel)
    finally:
        stop.set()
        await service
