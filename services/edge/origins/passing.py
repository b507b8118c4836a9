"""Requests that go to the origin as they are, and answers that go to the client unstored.

What they tell of stored responses is taken note of: unsafe methods make them invalid (RFC 9111,
section 4.4), HEAD updates them (4.3.5), and an answer to POST may be one to GET (RFC 9110, 9.3.3).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from services.edge.http.exchange import Exchange
from services.edge.http.problems import LengthRequiredError
from services.edge.origins.answers import Answers, Found
from services.edge.origins.client import Answer
from services.edge.origins.connection import Interim
from services.edge.origins.delivery import Bill, Pieces, deliver
from services.edge.origins.errors import OriginUnavailableError
from services.edge.origins.fetches import Arrival, Fetches
from services.edge.origins.fields import Fields, end_to_end, value_of
from services.edge.origins.invalidation import SAFE, invalidated
from services.edge.origins.requests import Asked
from services.edge.origins.responses import Responses
from services.edge.origins.stored import Times, dated
from services.edge.origins.validation import still_holds
from services.edge.origins.vary import matches

_BODILESS = frozenset({204, 304})
_MOST_GATHERED_BYTES = 1024 * 1024


class Passing:
    """Passes requests and answers on.

    Args:
        answers: knows what clients get.
        responses: what is stored.
        fetches: what is on its way.
    """

    def __init__(self, answers: Answers, responses: Responses, fetches: Fetches) -> None:
        self._answers = answers
        self._responses = responses
        self._fetches = fetches

    async def pass_on(self, exchange: Exchange, asked: Asked, bill: Bill) -> None:
        """Asks the origin on behalf of this request alone."""
        options = asked.origin.options
        if asked.method != "HEAD":
            await bill.cover(options.estimate_bytes, hit=False)
        if not (asked.has_body and options.meter_uploads):
            body = exchange.body() if asked.has_body else None
            await self._pass_on(exchange, asked, bill, body)
            return
        upload = bill.beside("upload")
        try:
            await upload.cover(_length(exchange), hit=False)
            await self._pass_on(exchange, asked, bill, _counted(exchange, upload))
        finally:
            upload.settle()

    async def _pass_on(
        self, exchange: Exchange, asked: Asked, bill: Bill, body: AsyncIterator[bytes] | None
    ) -> None:
        requested_at = time.time()
        answer = await asked.origin.client.send(
            asked.method,
            asked.target.encode("latin-1"),
            asked.fields,
            body,
            interim_to(exchange),
        )
        times = Times(requested_at, time.time())
        head = answer.head
        if head.status > 599:
            answer.close()
            raise OriginUnavailableError("The origin's status is none of HTTP's.")
        fields = dated(end_to_end(head.fields), times.received_at)
        arrival = Arrival(head.status, fields, times, head.length, answer=answer)
        self._take_note(asked, arrival)
        fetch = self._fetches.adopt(asked, arrival) if asked.method == "POST" else None
        if fetch is not None and arrival.stored is not None:
            how = f"fwd=method; fwd-status={arrival.status}; stored"
            found = Found(arrival.stored, how, validated=True, begun=arrival.release)
            try:
                await self._answers.send_stored(exchange, asked, found, bill)
            finally:
                fetch.leave()
            return
        reason = "fwd=bypass" if asked.method in SAFE else "fwd=method"
        await self.send_answer(exchange, asked, arrival, bill, reason)

    async def send_answer(
        self, exchange: Exchange, asked: Asked, arrival: Arrival, bill: Bill, reason: str
    ) -> None:
        """Sends an answer that is this request's alone, and closes it."""
        if arrival.answer is None:
            raise OriginUnavailableError("There is no answer to pass on.")
        exchange.log_fields["cache"] = "miss"
        how = f"{reason}; fwd-status={arrival.status}"
        headers = self._answers.outgoing(exchange, asked, arrival.status, arrival.fields, how)
        spare = asked.origin.options.estimate_bytes
        with arrival.answer:
            if exchange.method == "HEAD" or arrival.status in _BODILESS:
                said = value_of(arrival.fields, b"content-length")
                if said is not None and arrival.status not in _BODILESS:
                    headers.append((b"content-length", said.encode("ascii")))
                await exchange.start(arrival.status, headers, dated=True)
                await exchange.send(b"")
                return
            pieces, length = _pieces(arrival.answer), arrival.length
            if length is None and exchange.http_version == "1.0":
                pieces, length = await _gathered(pieces)
            if length is not None:
                headers.append((b"content-length", b"%d" % length))
            await bill.cover(length or spare, hit=False)
            await exchange.start(arrival.status, [*headers, *bill.headers()], dated=True)
            await deliver(
                exchange,
                pieces,
                length=length,
                bill=bill,
                spare=spare,
                hit=False,
            )

    def _take_note(self, asked: Asked, arrival: Arrival) -> None:
        """Of what an answer says of what is stored."""
        if asked.method not in SAFE:
            for target in invalidated(arrival.status, asked.url, arrival.fields):
                key = (asked.origin.name, target)
                self._fetches.invalidate(key)
                self._responses.purge(*key)
        elif asked.method == "HEAD" and arrival.status == 200:
            self._update(asked, arrival.fields, arrival.times)

    def _update(self, asked: Asked, fields: Fields, times: Times) -> None:
        """A 200 to HEAD is about what a GET would get (section 4.3.5)."""
        for stored in list(self._responses.variants(asked.key)):
            if not matches(stored.selected, asked.fields) or stored.status != 200:
                continue
            if still_holds(stored.fields, fields):
                stored.freshen(fields, times)
            else:
                stored.expire()


def _length(exchange: Exchange) -> int:
    length = exchange.headers.get("content-length", "")
    if not length.isdecimal():
        raise LengthRequiredError("What is paid by its length states it.")
    return int(length)


async def _counted(exchange: Exchange, upload: Bill) -> AsyncIterator[bytes]:
    total = 0
    async for piece in exchange.body():
        total += len(piece)
        upload.deliver(total)
        yield piece


async def _pieces(answer: Answer) -> Pieces:
    while piece := await answer.read():
        yield piece


async def _gathered(pieces: Pieces) -> tuple[Pieces, int]:
    """A body of unknown length as one piece, for HTTP/1.0, which knows no chunks.

    Raises OriginUnavailableError when that would be too much to hold.
    """
    body = b""
    async for piece in pieces:
        body += piece
        if len(body) > _MOST_GATHERED_BYTES:
            raise OriginUnavailableError("The answer is too long for HTTP/1.0.")

    async def one() -> Pieces:
        yield body

    return one(), len(body)


def interim_to(exchange: Exchange) -> Interim:
    """Passes interim answers on to the client."""

    def pass_on(status: int, reason: bytes, fields: Fields) -> None:
        exchange.inform(status, reason, end_to_end(fields))

    return pass_on
