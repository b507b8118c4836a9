"""Uploads, their status, pins, and the health of the process."""

from __future__ import annotations

import re
from collections.abc import Callable
from email.message import Message
from email.utils import collapse_rfc2231_value
from uuid import uuid4

from services.edge.admission import LIST_PINS, PIN, UPLOAD, UPLOAD_STATUS, Admission
from services.edge.cache.pin_records import Pin
from services.edge.http.conditions import refuse_if_match
from services.edge.http.exchange import Exchange
from services.edge.http.operations import moment
from services.edge.http.problems import LengthRequiredError
from services.edge.objects import ObjectKey
from services.edge.origin import Origin
from services.edge.pages import page_of
from services.edge.pins.pins import Pins
from services.edge.uploads import Uploads
from services.rpc.errors import InvalidArgumentError

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,255}").fullmatch
_LENGTH = re.compile(r"[0-9]{1,18}").fullmatch
_MAX_NAME_BYTES = 255


class TransferHandlers:
    """Handlers of what changes something, and of what tells how that goes.

    Args:
        admission: who may.
        uploads: takes files.
        pins: keeps objects.
        origin: knows how far uploads have come.
        default_network: for the paths that name none.
    """

    def __init__(
        self,
        admission: Admission,
        uploads: Uploads,
        pins: Pins,
        origin: Origin,
        *,
        default_network: str,
    ) -> None:
        self._admission = admission
        self._uploads = uploads
        self._pins = pins
        self._origin = origin
        self._default_network = default_network

    async def post_object(self, exchange: Exchange, network: str) -> None:
        """``POST /objects/{network}``: the body is the file.

        Idempotent by the header Idempotency-Key.
        """
        caller = await self._admission.authorize(exchange.client, UPLOAD, network)
        exchange.log_fields["account_id"] = caller.account_id
        with self._admission.slot(caller):
            size_bytes = _content_length(exchange)
            self._uploads.check(network, size_bytes)
            refuse_if_match(exchange.headers)
            upload = await self._uploads.take(
                caller,
                network,
                _file_name(exchange),
                size_bytes,
                exchange.body(),
                _idempotency_key(exchange),
            )
        key = upload.publication.key
        document: dict[str, object] = {
            "network": key.network,
            "cid": key.cid,
            "size_bytes": upload.publication.size_bytes or size_bytes,
            "state": upload.publication.state,
            "amount": upload.receipt.amount,
            "currency": upload.receipt.currency,
        }
        location = f"/objects/{key}".encode("ascii")
        await exchange.respond_json(201, document, [(b"location", location)])

    async def get_status(self, exchange: Exchange, network: str, cid: str) -> None:
        """``GET /objects/{network}/{cid}/status``: how far an upload has come."""
        caller = await self._admission.authorize(exchange.client, UPLOAD_STATUS, f"{network}/{cid}")
        exchange.log_fields["account_id"] = caller.account_id
        with self._admission.slot(caller):
            found = await self._origin.publication(ObjectKey.parse(network, cid))
        updated = found.update_time
        await exchange.respond_json(
            200,
            {
                "network": network,
                "cid": cid,
                "state": found.state,
                "size_bytes": found.size_bytes,
                "nodes_total": found.nodes_total,
                "nodes_published": found.nodes_published,
                "nodes_finalized": found.nodes_finalized,
                "update_time": f"{updated.isoformat(timespec='milliseconds')}Z" if updated else "",
                "message": found.message,
            },
        )

    async def get_default_status(self, exchange: Exchange, cid: str) -> None:
        """``GET /{cid}/status``: as above, on the default network."""
        await self.get_status(exchange, self._default_network, cid)

    async def put_pin(self, exchange: Exchange, network: str, cid: str) -> None:
        """``PUT /pins/{network}/{cid}``: 201 when it was not pinned before, else 200."""
        caller = await self._admission.authorize(exchange.client, PIN, f"{network}/{cid}")
        exchange.log_fields["account_id"] = caller.account_id
        with self._admission.slot(caller):
            key = ObjectKey.parse(network, cid)
            refuse_if_match(exchange.headers)
            request_id = _idempotency_key(exchange) or uuid4().hex
            pinned = await self._pins.pin(caller, key, request_id)
        await exchange.respond_json(
            201 if pinned.created else 200,
            {
                "network": network,
                "cid": cid,
                "size_bytes": pinned.info.size_bytes,
                "amount": pinned.receipt.amount,
                "currency": pinned.receipt.currency,
                "paid_until": moment(pinned.paid_until),
            },
        )

    async def get_pins(self, exchange: Exchange) -> None:
        """``GET /pins``: a page of the account's pins, the oldest first."""
        caller = await self._admission.authorize(exchange.client, LIST_PINS, "pins")
        exchange.log_fields["account_id"] = caller.account_id
        found, next_page_token = page_of(exchange.query, self._pins.of(caller))
        pins = [self._pin(pin) for pin in found]
        await exchange.respond_json(200, {"pins": pins, "next_page_token": next_page_token})

    def _pin(self, pin: Pin) -> dict[str, object]:
        unpaid = pin.refused_since is not None
        return {
            "network": pin.key.network,
            "cid": pin.key.cid,
            "size_bytes": pin.size_bytes,
            "create_time": moment(pin.pinned_at),
            "paid_until": moment(pin.paid_until),
            "state": "unpaid" if unpaid else "paid",
            "end_time": moment(self._pins.ends_at(pin)) if unpaid else "",
        }

    async def delete_pin(self, exchange: Exchange, network: str, cid: str) -> None:
        """``DELETE /pins/{network}/{cid}``."""
        caller = await self._admission.authorize(exchange.client, PIN, f"{network}/{cid}")
        exchange.log_fields["account_id"] = caller.account_id
        with self._admission.slot(caller):
            key = ObjectKey.parse(network, cid)
            refuse_if_match(exchange.headers)
            await self._pins.unpin(caller, key, _idempotency_key(exchange) or uuid4().hex)
        await exchange.respond(204, [])


class HealthHandlers:
    """Whether the process lives, and whether it wants requests.

    Args:
        is_ready: whether it does.
    """

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready

    async def healthz(self, exchange: Exchange) -> None:
        """``/healthz``: 200 while the process answers at all."""
        await exchange.respond_json(200, {"status": "alive"})

    async def readyz(self, exchange: Exchange) -> None:
        """``/readyz``: 200 while new requests are welcome, 503 while it drains."""
        ready = self._is_ready()
        await exchange.respond_json(
            200 if ready else 503, {"status": "ready" if ready else "draining"}
        )


def _content_length(exchange: Exchange) -> int:
    text = exchange.headers.get("content-length")
    if text is None:
        raise LengthRequiredError
    if not _LENGTH(text):
        raise InvalidArgumentError("Content-Length is not a number.")
    return int(text)


def _idempotency_key(exchange: Exchange) -> str | None:
    key = exchange.headers.get("idempotency-key")
    if key is not None and not _REQUEST_ID(key):
        raise InvalidArgumentError("Idempotency-Key is 1 to 255 visible ASCII characters.")
    return key


def _file_name(exchange: Exchange) -> str:
    """The name that the uploader gives the file: ``?name=``, else that of Content-Disposition."""
    name = exchange.query.get("name")
    if name is None:
        name = _disposition_name(exchange.headers.get("content-disposition", ""))
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise InvalidArgumentError(f"A file's name has at most {_MAX_NAME_BYTES} bytes of UTF-8.")
    return name


def _disposition_name(header: str) -> str:
    """The ``filename*`` (RFC 8187) or ``filename`` of a Content-Disposition header."""
    message = Message()
    try:
        # Headers come as Latin-1; many clients send UTF-8 all the same.
        message["content-disposition"] = header.encode("latin-1").decode()
        parameters = message.get_params([], "content-disposition")
        # Extended parameters (filename*) come last, and stand above plain ones (RFC 6266).
        names = [value for name, value in parameters if name.lower() == "filename"]
        return collapse_rfc2231_value(names[-1]) if names else ""
    except (UnicodeError, LookupError, ValueError):
        raise InvalidArgumentError("The file name in Content-Disposition is not UTF-8.") from None
