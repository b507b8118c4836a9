"""GET and HEAD of an object (RFC 9110): conditions, ranges, and bytes that are counted."""

from __future__ import annotations

import asyncio
import time

from services.edge.admission import DOWNLOAD, Admission, Caller
from services.edge.downloads import Download, Downloads
from services.edge.http.exchange import Exchange
from services.edge.http.problems import Headers, PreconditionFailedError
from services.edge.http.ranges import (
    ByteRange,
    any_match,
    byte_range,
    none_matches,
    range_applies,
)
from services.edge.http.representation import cache_status, cost, representation, validators
from services.edge.lookup import ObjectLookup
from services.edge.objects import ObjectInfo, ObjectKey


class DownloadHandlers:
    """Handlers of the paths that lead to an object's bytes.

    Args:
        admission: who may.
        lookup: what is known of objects.
        downloads: the bytes, paid for.
        region: how this edge is called in Cache-Status.
        default_network: for the paths that name none.
    """

    def __init__(
        self,
        admission: Admission,
        lookup: ObjectLookup,
        downloads: Downloads,
        *,
        region: str,
        default_network: str,
    ) -> None:
        self._admission = admission
        self._lookup = lookup
        self._downloads = downloads
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
        caller = await self._admission.authorize(exchange.client, DOWNLOAD, f"{network}/{cid}")
        exchange.log_fields["account_id"] = caller.account_id
        with self._admission.slot(caller):
            key = ObjectKey.parse(network, cid)
            info = await self._lookup.find(key)
            if none_matches(exchange.headers.get("if-match"), cid):
                raise PreconditionFailedError
            if any_match(exchange.headers.get("if-none-match"), cid):
                await exchange.respond(304, validators(info))
                return
            headers = representation(info, _disposition(exchange, disposition))
            if exchange.method == "HEAD":
                headers.append((b"content-length", b"%d" % info.size_bytes))
                await exchange.respond(200, headers)
                return
            await self._send_part(exchange, caller, key, info, headers)

    async def _send_part(
        self,
        exchange: Exchange,
        caller: Caller,
        key: ObjectKey,
        info: ObjectInfo,
        headers: Headers,
    ) -> None:
        part = None
        if range_applies(exchange.headers.get("if-range"), key.cid):
            part = byte_range(exchange.headers.get("range"), info.size_bytes)
        status = 206 if part else 200
        if part is not None:
            headers.append((b"content-range", part.content_range(info.size_bytes)))
        part = part or ByteRange(0, info.size_bytes)
        async with self._downloads.open(caller, key, info, part.first, part.length) as download:
            headers += [
                (b"content-length", b"%d" % part.length),
                cache_status(self._region, hit=download.hit, detail=download.detail),
                *cost(download.payment),
            ]
            exchange.log_fields["cache"] = "hit" if download.hit else "miss"
            await _deliver(exchange, download, status, headers)


async def _deliver(exchange: Exchange, download: Download, status: int, headers: Headers) -> None:
    """Sends the answer and notes what of its body really left, to the byte."""
    # The head waits for the first piece: until then a failure can be told as such.
    piece = await anext(download.pieces, None)
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


def _cut_off_later(exchange: Exchange, download: Download) -> asyncio.TimerHandle | None:
    """Ends a transfer that its reader draws out, before its hold expires."""
    if download.payment is None:
        return None
    remaining_s = download.payment.ends_at - time.monotonic()
    return asyncio.get_running_loop().call_later(remaining_s, exchange.connection.abort)


def _disposition(exchange: Exchange, default: str) -> str:
    if "download" in exchange.query:
        return "attachment"
    return "inline" if "inline" in exchange.query else default
