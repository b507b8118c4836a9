"""GET and HEAD of an object (RFC 9110): conditions, ranges, and bytes that are counted."""

from __future__ import annotations

from dataclasses import dataclass

from services.edge.admission import DOWNLOAD, Admission, Caller, Place
from services.edge.cut_off import CutOff
from services.edge.downloads import Download, Downloads, Part
from services.edge.http.accel import Accelerator, FrontOrder, ticket_header
from services.edge.http.conditions import not_modified
from services.edge.http.digests import content_digest, preference
from services.edge.http.exchange import Exchange
from services.edge.http.multipart import multipart
from services.edge.http.problems import Headers
from services.edge.http.ranges import byte_ranges, range_applies
from services.edge.http.representation import (
    Field,
    age,
    cache_status,
    cost,
    media_type,
    representation,
    validators,
    without_description,
)
from services.edge.lookup import ObjectLookup
from services.edge.objects import ObjectInfo, ObjectKey

# With one of these a request may be for a part of an object, or for nothing of it.
_PARTIAL = {"range", "if-none-match", "if-match", "if-modified-since", "if-unmodified-since"}


class DownloadHandlers:
    """Handlers of the paths that lead to an object's bytes.

    Args:
        admission: who may.
        lookup: what is known of objects.
        downloads: the bytes, paid for.
        accelerator: for requests that come through nginx.
        region: how this edge is called in Cache-Status.
        default_network: for the paths that name none.
    """

    def __init__(
        self,
        admission: Admission,
        lookup: ObjectLookup,
        downloads: Downloads,
        accelerator: Accelerator,
        *,
        region: str,
        default_network: str,
    ) -> None:
        self._admission = admission
        self._lookup = lookup
        self._downloads = downloads
        self._accelerator = accelerator
        self._region = region
        self._default_network = default_network

    async def get_object(self, exchange: Exchange, network: str, cid: str) -> None:
        """``/objects/{network}/{cid}``: shown in the browser unless ``?download``."""
        await self._get(exchange, network, cid, "inline")

    async def get_file(self, exchange: Exchange, cid: str) -> None:
        """``/file/{cid}``: as ``/objects/``, on the default network."""
        await self._get(exchange, self._default_network, cid, "inline")

    async def get_download(self, exchange: Exchange, cid: str) -> None:
        """``/downloads/{cid}``: saved to a file unless ``?inline``, on the default network."""
        await self._get(exchange, self._default_network, cid, "attachment")

    async def _get(self, exchange: Exchange, network: str, cid: str, disposition: str) -> None:
        client = exchange.client
        caller = await self._admission.authorize(client, DOWNLOAD, f"{network}/{cid}")
        exchange.log_fields["account_id"] = caller.account_id
        await self._accelerator.make_place(exchange, caller)
        with self._admission.slot(caller) as place:
            key = ObjectKey.parse(network, cid)
            ahead = _wants_all(exchange) and self._downloads.may_read_ahead(caller)
            info = await self._lookup.find(key, ahead=ahead)
            if not_modified(exchange.headers, cid):
                await exchange.respond(304, validators(info))
                return
            described = representation(
                info, _disposition(exchange, disposition), self._wanted_sha256(exchange, cid)
            )
            if exchange.method == "HEAD":
                await exchange.respond(
                    200, [*described, (b"content-length", b"%d" % info.size_bytes)]
                )
                return
            await self._send(exchange, place, caller, key, info, described)

    async def _send(
        self,
        exchange: Exchange,
        place: Place,
        caller: Caller,
        key: ObjectKey,
        info: ObjectInfo,
        described: tuple[Field, ...],
    ) -> None:
        """Sends what is asked for: the whole, a part, or several."""
        body = _asked(exchange, key, info, described)
        downloads = self._downloads
        if body.parts and self._accelerator.delivers(exchange):
            order = FrontOrder(exchange, place, caller, key, info)
            if await self._accelerator.hand_over(order, body.parts, body.headers):
                return
            downloads = self._accelerator.downloads(order)
        opened = downloads.open_parts(caller, key, info, body.parts, body.closing)
        async with opened as download:
            headers = [
                *body.headers,
                (b"content-length", b"%d" % download.length),
                cache_status(self._region, hit=download.hit, detail=download.detail),
                *([age(info)] if download.hit else []),
                *cost(download.payment),
                *ticket_header(download.payment),
            ]
            exchange.log_fields["cache"] = "hit" if download.hit else "miss"
            exchange.connection.delivers = key.cid
            self._lookup.check(key)  # what is banned from now on is cut off
            await _deliver(exchange, download, body.status, headers)

    def _wanted_sha256(self, exchange: Exchange, cid: str) -> bytes | None:
        """The digest to tell of: if it is known, and not unwanted."""
        if preference(exchange.headers.get("want-repr-digest")) == 0:
            return None
        return self._lookup.sha256(cid)


@dataclass(frozen=True, slots=True)
class _Body:
    """What a GET is answered with."""

    status: int
    headers: Headers
    parts: tuple[Part, ...]
    closing: bytes = b""


def _asked(
    exchange: Exchange, key: ObjectKey, info: ObjectInfo, described: tuple[Field, ...]
) -> _Body:
    """What Range and If-Range ask for. Raises RangeNotSatisfiableError."""
    size, if_range = info.size_bytes, exchange.headers.get("if-range")
    applies = range_applies(if_range, key.cid)
    ranges = byte_ranges(exchange.headers.get("range"), size) if applies else ()
    if not ranges:
        return _Body(200, [*described], (Part(0, size),) if size else ())
    headers = [*described] if if_range is None else without_description(described)
    if len(ranges) == 1:
        headers.append((b"content-range", ranges[0].content_range(size)))
        return _Body(206, headers, (Part(ranges[0].first, ranges[0].length),))
    several = multipart(ranges, size, media_type(info))
    headers = [field for field in headers if field[0] != b"content-type"]
    headers.append((b"content-type", several.content_type))
    return _Body(206, headers, several.parts, several.closing)


async def _deliver(exchange: Exchange, download: Download, status: int, headers: Headers) -> None:
    """Sends the answer and notes what of its body really left, to the byte."""
    # The head waits for the first piece: until then a failure can be told as such.
    piece = await anext(download.pieces, None)
    if _wants_content_digest(exchange) and piece is not None and len(piece) == download.length:
        headers.append(content_digest(piece))  # short enough to be told before it is sent
    await exchange.start(status, headers)
    connection = exchange.connection
    body_at = connection.written
    limit = _cut_off_later(exchange, download)

    def note() -> int:
        sent = min(max(0, connection.sent - body_at), download.length)
        download.deliver(sent)
        return sent

    try:
        while piece is not None and not connection.lost:
            await exchange.send(piece, more=True)
            note()
            piece = await anext(download.pieces, None)
        if not connection.lost:
            await exchange.send(b"")
        await connection.flushed(body_at + download.length)
    except Exception:
        # What is right still goes out, and counts; that it is not all, the client sees.
        await exchange.break_off()
        raise
    finally:
        if limit is not None:
            limit.cancel()
        exchange.sent_bytes = note()


def _wants_content_digest(exchange: Exchange) -> bool:
    return bool(preference(exchange.headers.get("want-content-digest")))


def _cut_off_later(exchange: Exchange, download: Download) -> CutOff | None:
    """Ends a transfer that its reader draws out, before what pays for it ends."""
    payment = download.payment
    return None if payment is None else CutOff(lambda: payment.ends_at, exchange.connection.abort)


def _wants_all(exchange: Exchange) -> bool:
    """Whether a request is for all of an object, whatever it is."""
    return exchange.method == "GET" and exchange.headers.keys().isdisjoint(_PARTIAL)


def _disposition(exchange: Exchange, default: str) -> str:
    if "download" in exchange.query:
        return "attachment"
    return "inline" if "inline" in exchange.query else default
