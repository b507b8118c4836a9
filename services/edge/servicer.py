"""EdgeService: proto to domain and back. What happens stands in the domain's files."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from tollmesh.edge.v1 import edge_pb2 as pb
from tollmesh.edge.v1.edge_pb2_grpc import EdgeServiceServicer

from services.chain.errors import RangeNotSatisfiableError, UploadIncompleteError
from services.edge.admission import (
    ADMIN,
    DOWNLOAD,
    LIST_PINS,
    PIN,
    STAT,
    UPLOAD,
    UPLOAD_STATUS,
    Actions,
    Admission,
    Caller,
    Client,
    credential_of,
)
from services.edge.bans import Ban
from services.edge.cache.disk import DiskCache
from services.edge.cache.pin_records import Pin
from services.edge.downloads import Download, Downloads
from services.edge.lookup import ObjectLookup
from services.edge.objects import ObjectInfo, ObjectKey
from services.edge.operations import Operations
from services.edge.origin import Origin
from services.edge.pages import page
from services.edge.pins.pins import Pins
from services.edge.uploads import Uploads
from services.rpc.call import Call
from services.rpc.errors import DeadlineExceededError

_Operation = (
    pb.WarmObjectRequest | pb.PurgeObjectRequest | pb.BanObjectRequest | pb.UnbanObjectRequest
)


@dataclass(frozen=True, slots=True)
class EdgeServicer(EdgeServiceServicer):
    """Serves over gRPC what the HTTP face serves, from the same domain."""

    admission: Admission
    lookup: ObjectLookup
    downloads: Downloads
    uploads: Uploads
    pins: Pins
    disk: DiskCache
    origin: Origin
    operations: Operations

    async def StatObject(
        self, request: pb.StatObjectRequest, context: object
    ) -> pb.StatObjectResponse:
        """See edge.proto."""
        caller = await self._authorize(context, STAT, f"{request.network}/{request.cid}")
        with self.admission.slot(caller):
            key = ObjectKey.parse(request.network, request.cid)
            info = await self.lookup.find(key)
        return pb.StatObjectResponse(object=self._info(caller, key, info))

    async def ReadObject(
        self, request: pb.ReadObjectRequest, context: object
    ) -> AsyncIterator[pb.ReadObjectResponse]:
        """See edge.proto. A message counts as sent when the transport has taken it."""
        caller = await self._authorize(context, DOWNLOAD, f"{request.network}/{request.cid}")
        with self.admission.slot(caller):
            key = ObjectKey.parse(request.network, request.cid)
            wants_all = not request.offset and not request.HasField("length")
            ahead = wants_all and self.downloads.may_read_ahead(caller)
            info = await self.lookup.find(key, ahead=ahead)
            length = _length(request, info)
            async with self.downloads.open(caller, key, info, request.offset, length) as download:
                yield pb.ReadObjectResponse(
                    header=pb.ReadObjectHeader(
                        object=self._info(caller, key, info),
                        cache_status=(
                            pb.CACHE_STATUS_HIT if download.hit else pb.CACHE_STATUS_MISS
                        ),
                        length_bytes=length,
                    )
                )
                async for data in _counted(download):
                    self.lookup.check(key)  # what was banned meanwhile is cut off
                    yield pb.ReadObjectResponse(data=data)

    async def UploadObject(
        self, request_iterator: AsyncIterator[pb.UploadObjectRequest], context: object
    ) -> pb.UploadObjectResponse:
        """See edge.proto."""
        caller = await self._authorize(context, UPLOAD, "upload")
        with self.admission.slot(caller):
            first = await anext(aiter(request_iterator), None)
            if first is None or first.WhichOneof("part") != "header":
                raise UploadIncompleteError("The first message of an upload is its header.")
            header = first.header
            upload = await self.uploads.take(
                caller,
                header.network,
                header.name,
                header.size_bytes,
                _body(request_iterator),
                header.request_id,
            )
        return pb.UploadObjectResponse(
            network=header.network,
            cid=upload.publication.key.cid,
            size_bytes=header.size_bytes,
            state=_state(upload.publication.state),
            amount=upload.receipt.amount,
            currency=upload.receipt.currency,
        )

    async def GetUploadStatus(
        self, request: pb.GetUploadStatusRequest, context: object
    ) -> pb.GetUploadStatusResponse:
        """See edge.proto."""
        resource = f"{request.network}/{request.cid}"
        caller = await self._authorize(context, UPLOAD_STATUS, resource)
        with self.admission.slot(caller):
            key = ObjectKey.parse(request.network, request.cid)
            found = await self.origin.publication(key)
        response = pb.GetUploadStatusResponse(
            network=key.network,
            cid=key.cid,
            state=_state(found.state),
            size_bytes=found.size_bytes,
            nodes_total=found.nodes_total,
            nodes_published=found.nodes_published,
            nodes_finalized=found.nodes_finalized,
            message=found.message,
        )
        if found.update_time is not None:
            response.update_time.FromDatetime(found.update_time)
        return response

    async def PinObject(
        self, request: pb.PinObjectRequest, context: object
    ) -> pb.PinObjectResponse:
        """See edge.proto."""
        caller = await self._authorize(context, PIN, f"{request.network}/{request.cid}")
        with self.admission.slot(caller):
            key = ObjectKey.parse(request.network, request.cid)
            pinned = await self.pins.pin(caller, key, request.request_id)
        return pb.PinObjectResponse(
            object=self._info(caller, key, pinned.info),
            amount=pinned.receipt.amount,
            currency=pinned.receipt.currency,
            paid_until=_timestamp(pinned.paid_until),
        )

    async def UnpinObject(
        self, request: pb.UnpinObjectRequest, context: object
    ) -> pb.UnpinObjectResponse:
        """See edge.proto."""
        caller = await self._authorize(context, PIN, f"{request.network}/{request.cid}")
        with self.admission.slot(caller):
            key = ObjectKey.parse(request.network, request.cid)
            await self.pins.unpin(caller, key, request.request_id)
        return pb.UnpinObjectResponse()

    async def ListPins(self, request: pb.ListPinsRequest, context: object) -> pb.ListPinsResponse:
        """See edge.proto."""
        caller = await self._authorize(context, LIST_PINS, "pins")
        found, next_page_token = page(self.pins.of(caller), request.page_size, request.page_token)
        return pb.ListPinsResponse(
            pins=[self._pin(pin) for pin in found], next_page_token=next_page_token
        )

    async def WarmObject(
        self, request: pb.WarmObjectRequest, context: object
    ) -> pb.WarmObjectResponse:
        """See edge.proto."""
        caller = await self._named(context, DOWNLOAD, request)
        with self.admission.slot(caller):
            key = ObjectKey.parse(request.network, request.cid)
            warmed = await self.operations.warm(caller, key)
        return pb.WarmObjectResponse(
            object=self._info(caller, key, warmed.info),
            amount=warmed.receipt.amount,
            currency=warmed.receipt.currency,
        )

    async def PurgeObject(
        self, request: pb.PurgeObjectRequest, context: object
    ) -> pb.PurgeObjectResponse:
        """See edge.proto."""
        await self._named(context, ADMIN, request)
        key = ObjectKey.parse(request.network, request.cid)
        found = await self.operations.purge(key, force=request.force)
        return pb.PurgeObjectResponse(found=found)

    async def BanObject(
        self, request: pb.BanObjectRequest, context: object
    ) -> pb.BanObjectResponse:
        """See edge.proto."""
        await self._named(context, ADMIN, request)
        key = ObjectKey.parse(request.network, request.cid)
        ban, _ = await self.operations.ban(key, request.reason)
        return pb.BanObjectResponse(ban=_ban(ban))

    async def UnbanObject(
        self, request: pb.UnbanObjectRequest, context: object
    ) -> pb.UnbanObjectResponse:
        """See edge.proto."""
        await self._named(context, ADMIN, request)
        await self.operations.lift(ObjectKey.parse(request.network, request.cid))
        return pb.UnbanObjectResponse()

    async def ListBans(self, request: pb.ListBansRequest, context: object) -> pb.ListBansResponse:
        """See edge.proto."""
        await self._authorize(context, ADMIN, "bans")
        found, next_page_token = page(
            self.operations.bans.all(), request.page_size, request.page_token
        )
        return pb.ListBansResponse(
            bans=[_ban(ban) for ban in found], next_page_token=next_page_token
        )

    async def _named(self, context: object, actions: Actions, request: _Operation) -> Caller:
        """Authorizes an operation; its line in the log has the name that the caller gave it."""
        if request.request_id:
            Call.of(context).note(attempt=request.request_id)
        return await self._authorize(context, actions, f"{request.network}/{request.cid}")

    async def _authorize(self, context: object, actions: Actions, resource: str) -> Caller:
        call = Call.of(context)
        caller = await self.admission.authorize(_client(call), actions, resource)
        call.note(account_id=caller.account_id)
        return caller

    def _info(self, caller: Caller, key: ObjectKey, info: ObjectInfo) -> pb.ObjectInfo:
        return pb.ObjectInfo(
            network=key.network,
            cid=key.cid,
            size_bytes=info.size_bytes,
            name=info.name,
            media_type=info.media_type,
            finalized=info.finalized,
            cached=info.size_bytes == 0 or self.disk.info(key.cid) is not None,
            pinned=self.pins.is_pinned(caller, key),
        )

    def _pin(self, pin: Pin) -> pb.Pin:
        unpaid = pin.refused_since is not None
        return pb.Pin(
            network=pin.key.network,
            cid=pin.key.cid,
            size_bytes=pin.size_bytes,
            create_time=_timestamp(pin.pinned_at),
            paid_until=_timestamp(pin.paid_until),
            unpaid=unpaid,
            end_time=_timestamp(self.pins.ends_at(pin)) if unpaid else None,
        )


async def _counted(download: Download) -> AsyncIterator[bytes]:
    """The bytes of a download; each piece counts when the next one is asked for."""
    total = 0
    async for piece in download.pieces:
        yield bytes(piece)
        total += len(piece)
        download.deliver(total)
        if download.payment is not None and time.monotonic() > download.payment.ends_at:
            raise DeadlineExceededError("The reader is too slow; go on from the byte reached.")


def _ban(ban: Ban) -> pb.Ban:
    return pb.Ban(
        network=ban.key.network,
        cid=ban.key.cid,
        reason=ban.reason,
        create_time=_timestamp(ban.time_s),
    )


def _timestamp(time_s: float) -> Timestamp:
    return Timestamp(seconds=int(time_s), nanos=int(time_s % 1 * 1e9))


async def _body(requests: AsyncIterator[pb.UploadObjectRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "data":
            raise UploadIncompleteError("An upload has one header, then data.")
        yield request.data


def _length(request: pb.ReadObjectRequest, info: ObjectInfo) -> int:
    """How many bytes a request means. Raises RangeNotSatisfiableError."""
    left = info.size_bytes - request.offset
    if left < 0 or (left == 0 and request.offset > 0):
        raise RangeNotSatisfiableError(
            f"The object has {info.size_bytes} bytes.",
            metadata={"size_bytes": str(info.size_bytes)},
        )
    return min(left, request.length) if request.HasField("length") else left


def _client(call: Call) -> Client:
    return Client(
        credential=credential_of(call.metadata),
        ip_address=call.peer.rpartition(":")[0].strip("[]"),
        user_agent=call.metadata.get("user-agent", ""),
    )


def _state(name: str) -> pb.UploadState.ValueType:
    return pb.UploadState.Value(f"UPLOAD_STATE_{name.upper()}")
