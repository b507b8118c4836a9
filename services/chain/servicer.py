"""The chain contract over the domain: messages to arguments, results to messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing

from tollmesh.chain.v1 import chain_pb2 as pb
from tollmesh.chain.v1 import chain_pb2_grpc as pb_grpc

from services.chain.archive import Archive
from services.chain.dag.cid import Cid
from services.chain.errors import (
    NetworkNotFoundError,
    RangeNotSatisfiableError,
    UploadIncompleteError,
)
from services.chain.messages import head_message, object_message, publication_message
from services.chain.upload import Announcement
from services.rpc.call import Call
from services.rpc.errors import InvalidArgumentError
from services.store.pages import DEFAULT_SIZE, Listing


class ChainServicer(pb_grpc.ChainServiceServicer):
    """Reads and publishes objects of the archives it is given, by network name."""

    def __init__(self, archives: Mapping[str, Archive]) -> None:
        self._archives = dict(sorted(archives.items()))

    async def ListNetworks(
        self, request: pb.ListNetworksRequest, context: object
    ) -> pb.ListNetworksResponse:
        """The networks by name."""
        Call.of(context)
        listing = Listing("networks")
        after = listing.position(request.page_token).decode() if request.page_token else ""
        rest = [archive for name, archive in self._archives.items() if name > after]
        page = rest[: request.page_size or DEFAULT_SIZE]
        more = len(page) < len(rest)
        return pb.ListNetworksResponse(
            networks=[
                pb.Network(name=a.name, kind=a.kind, writable=a.intake is not None) for a in page
            ],
            next_page_token=listing.token(page[-1].name.encode()) if more else "",
        )

    async def GetHead(self, request: pb.GetHeadRequest, context: object) -> pb.GetHeadResponse:
        """How far the network has come now, and how far the index."""
        Call.of(context).note(network=request.network)
        return head_message(*await self._archive(request.network).heads())

    async def StatObject(
        self, request: pb.StatObjectRequest, context: object
    ) -> pb.StatObjectResponse:
        """What is known of an object."""
        Call.of(context).note(network=request.network, cid=request.cid)
        archive, cid = self._archive(request.network), Cid.parse(request.cid)
        return pb.StatObjectResponse(object=object_message(await archive.library.open(cid)))

    async def ReadObject(
        self, request: pb.ReadObjectRequest, context: object
    ) -> AsyncIterator[pb.ReadObjectResponse]:
        """The header, and then the bytes as they are verified."""
        call = Call.of(context)
        call.note(network=request.network, cid=request.cid, sent_bytes=0)
        archive, cid = self._archive(request.network), Cid.parse(request.cid)
        stored = await archive.library.open(cid)
        size = stored.info.size_bytes
        if request.offset > size:
            raise RangeNotSatisfiableError(metadata={"size_bytes": str(size)})
        yield pb.ReadObjectResponse(object=object_message(stored))
        length = request.length if request.HasField("length") else None
        sent_bytes = 0
        async with aclosing(stored.reader.read(request.offset, length)) as pieces:
            async for piece in pieces:
                yield pb.ReadObjectResponse(data=piece)
                sent_bytes += len(piece)
                call.note(sent_bytes=sent_bytes)

    async def PublishObject(
        self, request_iterator: AsyncIterator[pb.PublishObjectRequest], context: object
    ) -> pb.PublishObjectResponse:
        """Stores a file and sets it on its way."""
        header = await _header(request_iterator)
        Call.of(context).note(network=header.network, publish_request_id=header.request_id)
        intake = self._archive(header.network).intake
        if intake is None:
            raise InvalidArgumentError(
                "This network is only read here.", violations={"header.network": "is read-only"}
            )
        accepted = await intake.accept(
            header.request_id,
            Announcement(
                header.name if header.HasField("name") else None,
                header.size_bytes if header.HasField("size_bytes") else None,
            ),
            header.SerializeToString(deterministic=True),
            _pieces(request_iterator),
        )
        Call.of(context).note(cid=str(accepted.cid), size_bytes=accepted.size_bytes)
        return pb.PublishObjectResponse(
            cid=str(accepted.cid),
            size_bytes=accepted.size_bytes,
            publication=publication_message(header.network, accepted.cid, accepted.publication),
            replayed=accepted.replayed,
        )

    async def GetPublication(
        self, request: pb.GetPublicationRequest, context: object
    ) -> pb.GetPublicationResponse:
        """How far a publication has come."""
        Call.of(context).note(network=request.network, cid=request.cid)
        archive, cid = self._archive(request.network), Cid.parse(request.cid)
        record = await archive.publication(cid)
        return pb.GetPublicationResponse(
            publication=publication_message(request.network, cid, record)
        )

    def _archive(self, network: str) -> Archive:
        archive = self._archives.get(network)
        if archive is None:
            raise NetworkNotFoundError(f"No network {network!r} is configured here.")
        return archive


async def _header(requests: AsyncIterator[pb.PublishObjectRequest]) -> pb.PublishObjectHeader:
    first = await anext(requests, None)
    if first is None or not first.HasField("header"):
        raise UploadIncompleteError("The stream does not begin with a header.")
    return first.header


async def _pieces(requests: AsyncIterator[pb.PublishObjectRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.HasField("header"):
            raise UploadIncompleteError("The stream has a second header.")
        yield request.data
