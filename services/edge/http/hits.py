"""Hits that are answered at once: no task, no waiting, nothing asked of another service.

What can be answered so is a plain GET of an object that is whole here, by a key whose decision
still holds, out of credit that this edge has leased. Everything else goes to the handlers
(``downloads.py``), which give the same answers: a test compares them.

This is the path that most requests take, so what can be kept from one to the next is kept: what a
connection's header fields say, what a path leads to, the fields that an object's answers share.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from services.chain.errors import CidInvalidError, NetworkNotFoundError
from services.edge.admission import DOWNLOAD, Admission, Caller, credential_of, digest_of
from services.edge.credit.holds import Usage
from services.edge.credit.payments import Payment, Payments
from services.edge.delivery import SLICE_BYTES, Sources
from services.edge.downloads import usage_of
from services.edge.http.accel import Accelerator, without_body
from services.edge.http.answer import FINISHED, Answer, Finished
from services.edge.http.connection import Connection
from services.edge.http.cors import Cors
from services.edge.http.exchange import date_of
from services.edge.http.hosts import is_host
from services.edge.http.intake import HitRequest, Intake
from services.edge.http.problems import Headers
from services.edge.http.representation import AVAILABLE, Field, age, price, whole_hit
from services.edge.lookup import ObjectLookup
from services.edge.objects import ObjectInfo, ObjectKey
from services.rpc.trace import request_id_of

# What a plain GET may carry: these change nothing in the answer, or are looked at here.
_PLAIN = frozenset(
    {
        *(b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language"),
        *(b"authorization", b"x-api-key", b"x-request-id", b"traceparent", b"tracestate"),
        *(b"connection", b"keep-alive", b"referer", b"cookie", b"dnt", b"priority", b"pragma"),
        *(b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site", b"sec-fetch-user"),
        *(b"sec-ch-ua", b"sec-ch-ua-mobile", b"sec-ch-ua-platform", b"sec-gpc"),
        *(b"upgrade-insecure-requests", b"forwarded", b"via", b"x-forwarded-for"),
        *(b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"),
    }
)
_OF_FRONT = {b"tollmesh-accel", b"tollmesh-front", b"tollmesh-request"}
_PATHS = 10_000
_ACCOUNTS = 16
_AGE_OF_FINAL = b"age: 0\r\n"
_AVAILABLE = AVAILABLE + b": %d\r\n"
_STATUS_LINE = b"HTTP/1.1 200 OK\r\n"
_DISPOSITIONS = {"file": "inline", "downloads": "attachment"}
_is_simple = re.compile(rb"/[A-Za-z0-9/-]+").fullmatch


@dataclass(frozen=True, slots=True)
class Asked:
    """What the header fields of a plain GET say."""

    digest: bytes
    """Of the credential."""
    request_id: str | None
    trace_parent: str | None
    through_front: bool
    """Whether an nginx of ours asks, and delivers."""


@dataclass(slots=True, eq=False)
class _Target:
    """What a path leads to, and what its answers have in common."""

    key: ObjectKey
    path: str
    disposition: str
    info: ObjectInfo | None = None
    fields: dict[tuple[str, bytes | None], bytes] = field(default_factory=dict)
    """What the heads of its answers begin with: by where the bytes come from, and their digest."""
    usages: dict[str, Usage] = field(default_factory=dict)
    """By account."""

    def usage(self, caller: Caller, size_bytes: int) -> Usage:
        """What the caller has to pay for."""
        found = self.usages.get(caller.account_id)
        if found is None or found.quantity != size_bytes:
            if len(self.usages) >= _ACCOUNTS:
                self.usages.clear()
            found = usage_of(caller, self.key, size_bytes, hit=True)
            self.usages[caller.account_id] = found
        return found


class Hits:
    """Finds out whether a request can be answered at once, and answers it.

    Args:
        intake: lets requests in.
        admission: who may, and how much at once.
        lookup: what is known of objects.
        sources: the cache.
        payments: what is leased.
        accelerator: for requests that come through nginx.
        cors: which web pages may read.
        region: how this edge is called in Cache-Status.
        default_network: for the paths that name none.
    """

    def __init__(
        self,
        intake: Intake,
        admission: Admission,
        lookup: ObjectLookup,
        sources: Sources,
        payments: Payments,
        accelerator: Accelerator,
        cors: Cors,
        *,
        region: str,
        default_network: str,
    ) -> None:
        self._intake = intake
        self._admission = admission
        self._lookup = lookup
        self._sources = sources
        self._payments = payments
        self._accelerator = accelerator
        self._cors = _lines(*cors.fields({}))
        self._plain = _PLAIN if cors.fixed is None else _PLAIN | {b"origin"}
        self._region = region
        self._default_network = default_network
        self._targets: dict[bytes, _Target] = {}
        self.answered = 0
        """How many requests were answered at once so far."""

    def read(self, fields: Headers) -> Asked | None:
        """What a GET's header fields say; None when it must go the other way.

        The same fields say the same for as long as their connection lasts.
        """
        asked = dict(fields)
        if len(asked) != len(fields):
            return None
        through_front = self._accelerator.asked(asked)
        if not asked.keys() <= (self._plain | _OF_FRONT if through_front else self._plain):
            return None
        if not is_host(asked.get(b"host", b"/")):
            return None
        texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields}
        credential = credential_of(texts)
        return Asked(
            digest_of(credential),
            texts.get("x-request-id"),
            texts.get("traceparent"),
            through_front,
        )

    def answer(
        self, path: bytes, asked: Asked, connection: Connection, done: Callable[[], None]
    ) -> Answer | Finished | None:
        """Answers a GET; None, with nothing done, when it must go the other way.

        Args:
            path: as it was sent.
            asked: by ``read``.
            connection: the client's: idle, and without TLS.
            done: called at the end of an answer that is not finished yet.
        """
        target = self._targets.get(path) or self._read_path(path)
        caller = self._admission.recalled(asked.digest, DOWNLOAD[0])
        info = self._lookup.recall(target.key) if target is not None else None
        if target is None or caller is None or info is None or not self._has_room(caller):
            return None
        if asked.through_front:
            return self._hand_over(target, asked, caller, info, connection)
        source = self._sources.at_hand(target.key, info)
        if source is None:
            return None
        first = source.at_once(0, min(SLICE_BYTES, info.size_bytes))
        payment = self._payments.take(target.usage(caller, info.size_bytes)) if first else None
        if payment is None or not first:
            return None
        request_id, account_id = request_id_of(asked.request_id), caller.account_id
        now, peer = time.perf_counter(), connection.peer
        request = (now, target.path, request_id, asked.trace_parent, peer, account_id)
        self.answered += 1
        try:
            head = self._head(target, info, source.detail, payment, request_id)
            body_at = connection.written + len(head)
            all_taken = connection.send((head, first))
        except BaseException:
            payment.settle()
            raise
        if all_taken and len(first) == info.size_bytes:
            payment.deliver(len(first))
            payment.settle()
            self._intake.note_hit(request, len(first))
            return FINISHED
        connection.delivers = info.cid
        ended = self._takes_a_place(caller, request, done)
        answer = Answer(connection, source, info.size_bytes, payment, ended)
        answer.begin(body_at, len(first), all_taken=all_taken)
        return answer

    def _takes_a_place(
        self, caller: Caller, request: HitRequest, done: Callable[[], None]
    ) -> Callable[[int], None]:
        """Counts a request in flight; what is to be called at its end, with the bytes sent."""
        self._admission.occupy(caller)
        self._intake.enter()

        def ended(sent: int) -> None:
            self._admission.vacate(caller)
            self._intake.leave()
            self._intake.note_hit(request, sent)
            done()

        return ended

    def _hand_over(
        self,
        target: _Target,
        asked: Asked,
        caller: Caller,
        info: ObjectInfo,
        connection: Connection,
    ) -> Finished | None:
        """Answers nginx with the name of the file, which it sends by itself."""
        started = time.perf_counter()
        usage = target.usage(caller, info.size_bytes)
        handed = self._accelerator.hand_over_now(caller, info, usage, connection)
        if handed is None:
            return None
        request_id = request_id_of(asked.request_id)
        more = b"tollmesh-ticket: %b\r\nx-accel-redirect: %b\r\n" % (
            handed.ticket_id.encode("ascii"),
            handed.location.encode("ascii"),
        )
        head = self._head(target, info, "", handed.payment, request_id, more)
        connection.send((head,))
        peer, account_id = connection.peer, caller.account_id
        self._intake.note_hit(
            (started, target.path, request_id, asked.trace_parent, peer, account_id), 0
        )
        return FINISHED

    def _has_room(self, caller: Caller) -> bool:
        return self._intake.has_room and self._admission.has_place(caller)

    def _read_path(self, path: bytes) -> _Target | None:
        """Reads a path as ``Edge`` routes it; None for all that is not an object's, and queries."""
        if not _is_simple(path):
            return None
        text = path.decode("ascii")
        match text[1:].split("/"):
            case ["objects", network, cid]:
                disposition = "inline"
            case ["file" | "downloads" as kind, cid]:
                network, disposition = self._default_network, _DISPOSITIONS[kind]
            case _:
                return None
        try:
            target = _Target(ObjectKey.parse(network, cid), text, disposition)
        except (NetworkNotFoundError, CidInvalidError):
            return None
        if len(self._targets) >= _PATHS:
            self._targets.clear()
        self._targets[path] = target
        return target

    def _head(
        self,
        target: _Target,
        info: ObjectInfo,
        detail: str,
        payment: Payment,
        request_id: str,
        more: bytes = b"",
    ) -> bytes:
        """The head of an answer; ``detail`` is empty when nginx sends the body."""
        if target.info is not info:
            if target.info != info:
                target.fields.clear()
            target.info = info
        sha256 = self._lookup.sha256(info.cid)
        lasting = target.fields.get((detail, sha256))
        if lasting is None:
            fields = whole_hit(info, target.disposition, sha256, self._region, detail or "disk")
            if not detail:
                fields = without_body(fields)
            lasting = target.fields[detail, sha256] = _STATUS_LINE + _lines(*fields)
        return b"".join(
            (
                lasting,
                _AGE_OF_FINAL if info.finalized else _lines(age(info)),
                _price(payment.amount, payment.currency),
                _AVAILABLE % payment.available,
                _date(int(time.time())),
                self._cors,
                more,
                b"x-request-id: ",
                request_id.encode("ascii"),
                b"\r\n\r\n",
            )
        )


def _lines(*fields: Field) -> bytes:
    """Header fields as they are sent."""
    return b"".join([b"%b: %b\r\n" % each for each in fields])


@lru_cache(4096)
def _price(amount: int, currency: str) -> bytes:
    return _lines(*price(amount, currency))


@lru_cache(1)
def _date(now: int) -> bytes:
    return _lines((b"date", date_of(now)))
