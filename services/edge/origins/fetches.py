"""Asks origins, once for all who want the same at the same time, and keeps what may be kept.

A request waits for one under way only if the answer could be its own: when the answer turns out to
be another variant, or not to be shared at all, those who waited go on at once, side by side, and
for a while nobody waits at that target any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from services.edge.background import start
from services.edge.origins.body import Body, Reader
from services.edge.origins.client import Answer
from services.edge.origins.connection import Interim
from services.edge.origins.errors import OriginUnavailableError
from services.edge.origins.fields import Fields, end_to_end, without
from services.edge.origins.freshness import lifetime, rules_of
from services.edge.origins.invalidation import names_itself
from services.edge.origins.requests import Asked
from services.edge.origins.responses import Key, Responses
from services.edge.origins.stored import Stored, Times, dated
from services.edge.origins.storing import may_store, storable_fields
from services.edge.origins.validation import CONDITIONS, conditions, tells_of
from services.edge.origins.vary import selecting
from services.process.logs import get_logger
from services.rpc.errors import ServiceError

log = get_logger(__name__)

_PARTIAL = CONDITIONS | {b"range"}
_ALONE_S = 60.0
_MOST_ALONE = 10_000


@dataclass(slots=True)
class Arrival:
    """What an origin answered."""

    status: int
    fields: Fields
    """End to end, with a Date."""
    times: Times
    length: int | None
    """Of the body; None when only its end will tell."""
    stored: Stored | None = None
    """When it may be shared: it is stored, or being stored."""
    validated: bool = False
    """Whether it was stored before, and is still right."""
    answer: Answer | None = None
    """When it may not: to be read, and closed, by the one who asked."""
    hold: Reader | None = None
    """Keeps the stored body here until the one who asked has begun to read it."""

    def release(self) -> None:
        """Lets go of the stored body: those who want it read it by now."""
        if self.stored is not None and self.hold is not None:
            self.stored.body.leave(self.hold)
            self.hold = None


class Fetch:
    """A request under way; ``leave`` once for each that is interested."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.arrived: asyncio.Future[Arrival] = asyncio.get_running_loop().create_future()
        self.discarded = False
        """Whether what comes is not to be stored: it was made invalid meanwhile."""
        self._interested = 1
        self._task: asyncio.Task[None] | None = None
        self._taken = False

    def run(self, task: asyncio.Task[None]) -> None:
        """Takes note of the task that does it."""
        self._task = task

    def join(self) -> None:
        """One more is interested."""
        self._interested += 1

    def take(self) -> None:
        """The one who asked owns the answer from now on, and closes it."""
        self._taken = True

    def leave(self) -> None:
        """One less is interested; what nobody wants ends, unless most of it is here."""
        self._interested -= 1
        if self._interested or self._task is None:
            return
        if not self.arrived.done():
            self._task.cancel()
            return
        if self.arrived.cancelled() or self.arrived.exception() is not None:
            return
        arrival = self.arrived.result()
        stored, length = arrival.stored, arrival.length
        if arrival.answer is not None and not self._taken:
            arrival.answer.close()
        arrival.release()
        if stored is not None and not (
            length and stored.body.kept and stored.body.size * 2 > length
        ):
            self._task.cancel()


class Fetches:
    """All requests to origins for what may be kept.

    Args:
        responses: where it is kept.
    """

    def __init__(self, responses: Responses) -> None:
        self._responses = responses
        self._running: dict[Key, list[Fetch]] = {}
        self._alone: dict[int, float] = {}
        """Until when, by the hash of the target: who shares one by chance waits for nobody."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Ends what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def may_share(self, key: Key) -> bool:
        """Whether waiting for others makes sense at a target: not where it just did not."""
        until = self._alone.get(hash(key))
        if until is None:
            return True
        if until > time.monotonic():
            return False
        del self._alone[hash(key)]
        return True

    def under_way(self, asked: Asked, tried: list[Fetch]) -> Fetch | None:
        """A request whose answer may be that to this one too, which it then is interested in."""
        for fetch in self._running.get(asked.key, ()):
            if fetch not in tried and self._may_match(fetch, asked):
                fetch.join()
                return fetch
        return None

    def _may_match(self, fetch: Fetch, asked: Asked) -> bool:
        """By what is known of the target's Vary: from stored variants, or from this very answer."""
        known = [stored.fields for stored in self._responses.variants(asked.key)[:1]]
        if fetch.arrived.done() and not fetch.arrived.cancelled():
            if fetch.arrived.exception() is not None:
                return False
            known = [fetch.arrived.result().fields]
        return all(
            selecting(fields, fetch.asked.fields) == selecting(fields, asked.fields)
            for fields in known
        )

    def begin(
        self,
        asked: Asked,
        stale: Stored | None,
        interim: Interim | None,
        *,
        shared: bool,
    ) -> Fetch:
        """Asks the origin; about a stored response if there is one, else for what is asked.

        The one who asks takes the arrival and leaves the fetch.
        """
        # Held from now on: the store may forget it before the task begins.
        hold = None if stale is None else stale.body.join()
        fetch = Fetch(asked)
        if shared:
            self._running.setdefault(asked.key, []).append(fetch)
        self._start(fetch, self._run(fetch, stale, hold, interim))
        return fetch

    def _start(self, fetch: Fetch, work: Coroutine[Any, Any, None]) -> None:
        task = start(work)
        fetch.run(task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def renew(self, asked: Asked, stale: Stored) -> None:
        """Asks about a stored response in the background, unless somebody asks already."""
        if asked.key not in self._running:
            fetch = self.begin(asked, stale, None, shared=True)
            # Nobody takes what arrives, and nobody leaves: it is read to its end.
            fetch.arrived.add_done_callback(_let_go)

    def adopt(self, asked: Asked, arrival: Arrival) -> Fetch | None:
        """Keeps an answer to POST that says that it is one to GET; None when it may not be kept.

        As ``begin`` for an answer that is here already (RFC 9110, section 9.3.3).
        """
        if arrival.answer is None or not names_itself(asked.url, arrival.fields):
            return None
        stored = self._storable(asked, arrival, explicit=True)
        if stored is None:
            return None
        answer, arrival.answer = arrival.answer, None
        arrival.stored, arrival.hold = stored, stored.body.join()
        fetch = Fetch(asked)
        fetch.arrived.set_result(arrival)
        self._start(fetch, self._fill(fetch, stored, answer))
        return fetch

    def invalidate(self, key: Key) -> None:
        """What is on its way for a target is not to be stored, nor shared with later requests."""
        for fetch in self._running.pop(key, ()):
            fetch.discarded = True

    def discard(self, name: str, target: str | None) -> None:
        """As ``invalidate``, for a target or for all of an origin."""
        keys = [key for key in self._running if key[0] == name and target in {None, key[1]}]
        for key in keys:
            self.invalidate(key)

    def _forget(self, fetch: Fetch) -> None:
        running = self._running.get(fetch.asked.key, [])
        if fetch in running:
            running.remove(fetch)
            if not running:
                del self._running[fetch.asked.key]

    async def _run(
        self, fetch: Fetch, stale: Stored | None, hold: Reader | None, interim: Interim | None
    ) -> None:
        try:
            arrival, answer = await self._ask(fetch, stale, interim)
        except asyncio.CancelledError:
            fetch.arrived.cancel()
            self._forget(fetch)
            raise
        except Exception as error:  # noqa: BLE001 (those who wait get it)
            self._forget(fetch)
            fetch.arrived.set_exception(error)
            fetch.arrived.exception()  # nobody may be waiting
            return
        finally:
            if stale is not None and hold is not None:
                stale.body.leave(hold)
        if arrival.stored is None:
            self._go_alone(fetch.asked.key)
        else:
            self._alone.pop(hash(fetch.asked.key), None)
        if answer is None or arrival.stored is None:
            self._forget(fetch)
            fetch.arrived.set_result(arrival)
            return
        fetch.arrived.set_result(arrival)
        try:
            await self._fill(fetch, arrival.stored, answer)
        finally:
            self._forget(fetch)

    async def _ask(
        self, fetch: Fetch, stale: Stored | None, interim: Interim | None
    ) -> tuple[Arrival, Answer | None]:
        """The origin's answer, and where its body comes from if it is to be stored."""
        asked = fetch.asked
        fields = asked.fields if stale is None else without(asked.fields, _PARTIAL)
        while True:
            requested_at = time.time()
            added = [] if stale is None else conditions(stale.fields)
            answer = await asked.origin.client.send(
                asked.method, asked.target.encode("latin-1"), fields + added, interim=interim
            )
            times = Times(requested_at, time.time())
            if answer.head.status != 304 or stale is None:
                break
            answer.close()
            if tells_of(stale.fields, answer.head.fields):
                return self._validated(fetch, stale, answer, times), None
            stale = None  # it is news of something else: ask for the thing itself
        return self._arrival(fetch, answer, times)

    def _validated(self, fetch: Fetch, stale: Stored, answer: Answer, times: Times) -> Arrival:
        stale.freshen(answer.head.fields, times)
        hold = stale.body.join()
        if fetch.discarded or "no-store" in stale.rules or stale.rules.wholly("private"):
            self._responses.remove(stale)
        return Arrival(
            stale.status,
            stale.fields,
            times,
            stale.length,
            stored=stale,
            validated=True,
            hold=hold,
        )

    def _arrival(self, fetch: Fetch, answer: Answer, times: Times) -> tuple[Arrival, Answer | None]:
        head, asked = answer.head, fetch.asked
        if head.status > 599:
            answer.close()
            raise OriginUnavailableError("The origin's status is none of HTTP's.")
        fields = dated(end_to_end(head.fields), times.received_at)
        arrival = Arrival(head.status, fields, times, head.length)
        stored = self._storable(asked, arrival)
        if stored is None:
            arrival.answer = answer
            return arrival, None
        arrival.stored, arrival.hold = stored, stored.body.join()
        return arrival, answer

    def _storable(self, asked: Asked, arrival: Arrival, *, explicit: bool = False) -> Stored | None:
        """The answer as one to GET that is to be stored; None when it may not be, or cannot.

        With ``explicit``, only if the origin has said how long it is fresh.
        """
        rules, origin = rules_of(arrival.fields), asked.origin
        fresh = lifetime(
            arrival.status, arrival.fields, rules, arrival.times.received_at, origin.defaults
        )
        selected = selecting(arrival.fields, asked.fields)
        too_large = (arrival.length or 0) > self._responses.max_object_bytes
        if selected is None or too_large or (explicit and not fresh.explicit):
            return None
        if not may_store(
            arrival.status,
            arrival.fields,
            rules,
            fresh,
            asked=asked.directives,
            authorized=asked.authorized,
        ):
            return None
        fields = storable_fields(arrival.fields, rules)
        return Stored(
            arrival.status,
            fields,
            arrival.times,
            selected,
            Body(self._responses),
            origin.defaults,
            arrival.length,
        )

    async def _fill(self, fetch: Fetch, stored: Stored, answer: Answer) -> None:
        """Takes in the body, and keeps the response when all of it is here."""
        body = stored.body
        try:
            with answer:
                while piece := await answer.read():
                    await body.append(piece)
            body.finish()
        except ServiceError as error:
            log.info("origin_broke_off", origin=fetch.asked.origin.name, reason=str(error))
            body.fail(OriginUnavailableError("The origin broke its answer off."))
        except BaseException:
            body.fail(OriginUnavailableError("The answer is no longer fetched."))
            raise
        finally:
            if body.complete and body.kept and not fetch.discarded:
                stored.length = body.size
                self._responses.add(fetch.asked.key, stored, fetch.asked.fields)
            else:
                body.drop()

    def _go_alone(self, key: Key) -> None:
        if len(self._alone) >= _MOST_ALONE:
            self._alone.clear()
        self._alone[hash(key)] = time.monotonic() + _ALONE_S


def _let_go(arrived: asyncio.Future[Arrival]) -> None:
    if arrived.cancelled() or arrived.exception() is not None:
        return
    arrival = arrived.result()
    arrival.release()
    if arrival.answer is not None:
        arrival.answer.close()
