"""``/origins/{name}/...``: admits, answers out of the cache or from the origin, and meters."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from secrets import token_hex

from services.edge.admission import ADMIN, DOWNLOAD, UPLOAD, Admission, Caller
from services.edge.credit.payments import Payments
from services.edge.http.cors import Cors, is_preflight
from services.edge.http.exchange import Exchange
from services.edge.http.problems import MethodNotAllowedError, PathNotFoundError
from services.edge.http.routes import ALL_METHODS
from services.edge.origins.answers import Answers, Found
from services.edge.origins.body import TooLateError
from services.edge.origins.delivery import Bill
from services.edge.origins.errors import NothingStoredError, OriginUnavailableError
from services.edge.origins.fetches import Arrival, Fetch, Fetches
from services.edge.origins.freshness import Reuse, on_error, reuse
from services.edge.origins.invalidation import SAFE
from services.edge.origins.leaving import while_connected
from services.edge.origins.passing import Passing, interim_to
from services.edge.origins.requests import (
    PRODUCT,
    Asked,
    Origin,
    asked_of,
    own_credential,
    path_below,
    target_of,
)
from services.edge.origins.responses import Responses
from services.edge.origins.stored import Stored
from services.edge.origins.vary import matches
from services.rpc.errors import ServiceError

_REFUSED = frozenset({"TRACE", "CONNECT"})
_FAILURES = frozenset({500, 502, 503, 504})
_FOR_THE_ORIGIN = ("if-match", "if-unmodified-since")


@dataclass(frozen=True, slots=True)
class _Question:
    """A request that the origin has to be asked about."""

    exchange: Exchange
    asked: Asked
    bill: Bill
    stored: Stored | None
    """What is stored, but may not be used as it is."""
    reason: str
    """Why the origin is asked, as Cache-Status has it."""


class OriginHandlers:
    """The handler of everything below ``/origins/``.

    Args:
        origins: by name.
        admission: who may.
        payments: who pays.
        responses: what is stored.
        cors: which web pages may read answers of origins that need a key.
        region: how this edge is called in Cache-Status.
    """

    def __init__(
        self,
        origins: dict[str, Origin],
        admission: Admission,
        payments: Payments,
        responses: Responses,
        cors: Cors,
        *,
        region: str,
    ) -> None:
        self._origins = origins
        self._admission = admission
        self._payments = payments
        self._responses = responses
        self._cors = cors
        self._fetches = Fetches(responses)
        # Of this process alone: another edge of the region may well stand behind this one.
        self._pseudonym = f"{PRODUCT}-{region}-{token_hex(4)}"
        self._answers = Answers(region, self._pseudonym)
        self._passing = Passing(self._answers, responses, self._fetches)

    async def close(self) -> None:
        """Ends what is under way to origins, and forgets what is stored."""
        await self._fetches.close()
        for origin in self._origins.values():
            origin.client.close()
        self._responses.close()

    def purge(self, name: str, target: str | None = None) -> int:
        """Forgets what is stored of an origin, or for one target there; how many responses.

        The target is path and query as the origin gets them. What is on its way is not stored.
        """
        self._fetches.discard(name, target)
        return self._responses.purge(name, target)

    @property
    def stored_bytes(self) -> tuple[int, int]:
        """What is stored now, in bytes: in memory, and in files."""
        return self._responses.memory_bytes, self._responses.disk_bytes

    async def handle(self, exchange: Exchange) -> None:
        """Any request."""
        name, path = path_below(exchange)
        origin = self._origins.get(name)
        if origin is None:
            raise PathNotFoundError
        if origin.options.sponsor:
            exchange.cors = []  # which pages may read is the origin's affair
        elif is_preflight(exchange.method, exchange.headers):
            # Browsers send no key with the question, and the key is ours to ask for.
            await exchange.respond(204, self._cors.preflight(ALL_METHODS))
            return
        if exchange.method == "PURGE":
            await self._purge(exchange, origin, path)
            return
        if exchange.method in _REFUSED:
            raise MethodNotAllowedError(metadata={"allow": "GET, HEAD, POST, PUT, PATCH, DELETE"})
        caller = await self._caller(exchange, origin, path)
        exchange.log_fields["account_id"] = caller.account_id
        asked = asked_of(exchange, origin, path, self._pseudonym)
        with self._admission.slot(caller):
            is_sponsored = not own_credential(exchange.client)
            bill = Bill(
                self._payments,
                caller.account_id,
                f"origins/{name}{path}",
                is_sponsored=is_sponsored,
            )
            try:
                if not self._is_for_the_store(exchange, asked):
                    async with while_connected(exchange.connection):
                        await self._passing.pass_on(exchange, asked, bill)
                elif not await self._by_store(exchange, asked, bill):
                    async with while_connected(exchange.connection):
                        await self._answer(exchange, asked, bill)
            finally:
                bill.settle()

    async def _purge(self, exchange: Exchange, origin: Origin, path: str) -> None:
        """Purges a target; without a path, all of the origin. Never goes to the origin."""
        caller = await self._admission.authorize(
            exchange.client, ADMIN, f"origins/{origin.name}{path}"
        )
        exchange.log_fields["account_id"] = caller.account_id
        is_all = exchange.raw_path.count(b"/") < 3
        found = self.purge(origin.name, None if is_all else target_of(exchange, origin, path))
        await exchange.respond_json(200, {"origin": origin.name, "purged": found})

    async def _caller(self, exchange: Exchange, origin: Origin, path: str) -> Caller:
        client, sponsor = exchange.client, origin.options.sponsor
        if sponsor and not own_credential(client):
            return Caller(sponsor, "", 0)
        actions = DOWNLOAD if exchange.method in SAFE else UPLOAD
        return await self._admission.authorize(client, actions, f"origins/{origin.name}{path}")

    def _is_for_the_store(self, exchange: Exchange, asked: Asked) -> bool:
        """Whether a stored answer may be one to this request."""
        plain = asked.method in {"GET", "HEAD"} and not asked.has_body
        return plain and not any(name in exchange.headers for name in _FOR_THE_ORIGIN)

    async def _answer(self, exchange: Exchange, asked: Asked, bill: Bill) -> None:
        """By the origin."""
        if "only-if-cached" in asked.directives:
            raise NothingStoredError("Nothing that is fresh enough is stored.")
        if asked.method == "HEAD":
            await self._passing.pass_on(exchange, asked, bill)
            return
        await bill.cover(asked.origin.options.estimate_bytes, hit=False)
        # That may have taken long enough for another to have asked, and been answered.
        if not await self._by_store(exchange, asked, bill):
            await self._fetched(exchange, asked, bill)

    async def _by_store(self, exchange: Exchange, asked: Asked, bill: Bill) -> bool:
        """Answers without the origin, if what is stored may be used; whether it did."""
        stored = self._responses.find(asked.key, asked.fields)
        if stored is None:
            return False
        use = reuse(stored.rules, stored.clock(time.time()), asked.directives)
        if use is Reuse.AFTER_VALIDATION:
            return False
        if use is Reuse.WHILE_REVALIDATING:
            self._fetches.renew(asked, stored)
        await self._answers.send_stored(exchange, asked, Found(stored, "hit", hit=True), bill)
        return True

    async def _fetched(self, exchange: Exchange, asked: Asked, bill: Bill) -> None:
        """Answers by what the origin says now, to this request or to one that it may wait for."""
        stored = self._responses.find(asked.key, asked.fields)
        question = _Question(exchange, asked, bill, stored, self._reason(asked, stored))
        hold = None if stored is None else stored.body.join()
        tried: list[Fetch] = []
        try:
            while True:
                fetch, joined = self._fetch(question, tried)
                try:
                    if await self._by(question, fetch, joined=joined):
                        return
                finally:
                    fetch.leave()
                tried.append(fetch)
        finally:
            if stored is not None and hold is not None:
                stored.body.leave(hold)

    def _fetch(self, question: _Question, tried: list[Fetch]) -> tuple[Fetch, bool]:
        """What is under way for such a request already, or a request to the origin; which it is."""
        asked, stored = question.asked, question.stored
        waits = self._fetches.may_share(asked.key)
        fetch = self._fetches.under_way(asked, tried) if waits else None
        if fetch is not None:
            return fetch, True
        # The origin may answer to a condition or a range what is of no use to others.
        shared = waits and (stored is not None or not _is_partial(question.exchange))
        interim = interim_to(question.exchange)
        return self._fetches.begin(asked, stored, interim, shared=shared), False

    async def _by(self, question: _Question, fetch: Fetch, *, joined: bool) -> bool:
        """Answers by a fetch; False when its answer is not one to this request."""
        try:
            arrival = await _arrival_of(fetch)
        except ServiceError:
            if await self._stood_in(question, "", connected=False):
                return True
            raise
        if joined and not _usable(arrival, question.asked):
            return False
        status = f"; fwd-status={304 if arrival.validated else arrival.status}"
        if arrival.status in _FAILURES and await self._stood_in(question, status, connected=True):
            return True
        if arrival.stored is None:
            fetch.take()
            exchange, asked, bill = question.exchange, question.asked, question.bill
            await self._passing.send_answer(exchange, asked, arrival, bill, question.reason)
            return True
        how = question.reason + status + ("" if arrival.validated else "; stored")
        return await self._share(question, arrival, how, joined=joined)

    async def _share(
        self, question: _Question, arrival: Arrival, how: str, *, joined: bool
    ) -> bool:
        """Answers with what is being stored; False when it is too late to join."""
        if arrival.stored is None:
            return False
        if joined:
            found = Found(arrival.stored, f"{how}; collapsed", validated=True)
        else:
            found = Found(arrival.stored, how, validated=True, begun=arrival.release)
        try:
            await self._answers.send_stored(question.exchange, question.asked, found, question.bill)
        except TooLateError:
            if joined:
                return False
            raise OriginUnavailableError("The answer was dropped.") from None
        return True

    async def _stood_in(self, question: _Question, status: str, *, connected: bool) -> bool:
        """Answers with what is stale in the place of an answer that failed, if that may be."""
        asked, stored = question.asked, question.stored
        if stored is None:
            return False
        default_s = 0.0 if connected else asked.origin.options.stale_if_error_s
        clock = stored.clock(time.time())
        if not on_error(stored.rules, clock, asked.directives, default_s=default_s):
            return False
        found = Found(stored, f"{question.reason}{status}; detail=stale-if-error")
        await self._answers.send_stored(question.exchange, asked, found, question.bill)
        return True

    def _reason(self, asked: Asked, stored: Stored | None) -> str:
        """Why the request goes forward (RFC 9211, section 2.2)."""
        if stored is not None:
            fresh = stored.clock(time.time()).fresh_for > 0
            return "fwd=request" if fresh and not stored.rules.wholly("no-cache") else "fwd=stale"
        return "fwd=vary-miss" if self._responses.variants(asked.key) else "fwd=uri-miss"


async def _arrival_of(fetch: Fetch) -> Arrival:
    """What comes of a fetch, which goes on if this request does not.

    Raises OriginUnavailableError, OriginTimeoutError.
    """
    await asyncio.wait({fetch.arrived})
    if fetch.arrived.cancelled():
        raise OriginUnavailableError("The origin is no longer asked.")
    return fetch.arrived.result()


def _usable(arrival: Arrival, asked: Asked) -> bool:
    """Whether the answer to one request is that to another, which waited for it."""
    stored = arrival.stored
    if stored is None or not matches(stored.selected, asked.fields):
        return False
    return reuse(stored.rules, stored.clock(time.time()), asked.directives) is Reuse.AS_IS


def _is_partial(exchange: Exchange) -> bool:
    return any(name in exchange.headers for name in ("if-none-match", "if-modified-since", "range"))
