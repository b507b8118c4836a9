"""Request ids: each mutation is applied once, however often it is repeated.

A mutation's operation looks its request id up first, and writes the record of its answer in the
transaction of its effect; so an outcome that the caller never learned is had again by repeating the
request. Records are kept for at least a set time and are found for removal by an expiry index.

What the answer's bytes mean is the service's business. An answer must hold no secret: it is stored.

Stored: a record's key ends with the id, or with the beginning of a long one and a digest; so ids
that callers count up, or begin with the time, stand together and are cheap to write. Its value is a
fingerprint of FINGERPRINT_BYTES, then the answer. The index has a key for up to INDEXED records
that were made together: the second in which they may go, then how the key of the first one ends;
its value says of each other one how its key ends, with the length before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from typing import NoReturn

from services.store.errors import RequestIdReusedError, StoreError
from services.store.keys import Part, Subspace
from services.store.port import Operation, Store, Transaction
from services.store.records import CHECK_BYTES, is_intact, sealed, unsealed
from services.store.retention import STEP_S, Retention

FINGERPRINT_BYTES = 12
SHORT_BYTES = 24
"""A longer id is kept as a mark that begins no id, its beginning, and a digest.

Should two ids ever have the same digest, their fingerprints tell them apart: the second is refused.
"""
_MARK, _BEGINNING, _DIGEST = b"\x00", 11, 8
_SECOND_BYTES = 5
"""Enough for 30,000 years."""
INDEXED = 64
"""Records that share a key of the index: few enough for a sweep that stops between two keys."""
SWEEP_LIMIT = 500
"""Records after which one sweeping operation ends: it stays small beside the service's work."""
_SWEEP_PART = 16
"""Keys of the index that are read at a time."""


def fingerprint(method: str, content: bytes) -> bytes:
    """Names what was asked for: the method, and the request without regard to who sends it.

    ``content`` is the request in one canonical form: ``SerializeToString(deterministic=True)``.
    """
    return blake2b(method.encode() + b"\x00" + content, digest_size=FINGERPRINT_BYTES).digest()


class RequestRecords:
    """The records of one service; an id is used once in all its methods and accounts."""

    __slots__ = ("_expiries", "_keep_s", "_prefix", "retention")

    def __init__(self, *subspace: Part, keep_s: int, retention: Retention | None = None) -> None:
        """``keep_s``: for how many seconds at least a record is kept.

        By ``retention``, which no jump of a clock concerns; or else by the times of the callers.
        """
        self.retention = retention
        self._prefix = Subspace(*subspace, "r").prefix
        self._expiries = Subspace(*subspace, "x").prefix
        self._keep_s = keep_s

    def key(self, request_id: str) -> bytes:
        """The record's key, for ``Operation.reads``, ``answer_in`` and ``remember_all``."""
        name = request_id.encode()
        if len(name) > SHORT_BYTES:
            digest = blake2b(name, digest_size=_DIGEST).digest()
            name = _MARK + name[:_BEGINNING] + digest
        return self._prefix + name

    def replay(self, tx: Transaction, request_id: str, content: bytes) -> bytes | None:
        """The answer that the request had before, or None when it is new.

        ``content`` is its ``fingerprint``. Raises ``RequestIdReusedError`` when the id was used for
        another request.
        """
        key = self.key(request_id)
        stored = tx.get(key)
        return None if stored is None else answer_in(unsealed(key, stored), request_id, content)

    def remember(
        self, tx: Transaction, request_id: str, content: bytes, answer: bytes, *, now_us: int
    ) -> None:
        """Records the answer to a request that ``replay`` did not know."""
        self.remember_all(tx, {self.key(request_id): content + answer}, now_us=now_us)

    def remember_all(self, tx: Transaction, records: Mapping[bytes, bytes], *, now_us: int) -> None:
        """Writes new records: by the ``key`` of its id, each fingerprint with its answer behind."""
        for key, record in records.items():
            tx.set(key, sealed(key, record))
        now_us += self.ahead_us(now_us)
        # Rounded up, so that a record is never kept for less than was promised.
        expires_s = -(-now_us // 1_000_000) + self._keep_s
        names = [key[len(self._prefix) :] for key in records]
        due = self._due(expires_s)
        for start in range(0, len(names), INDEXED):
            others = [bytes((len(name),)) + name for name in names[start + 1 : start + INDEXED]]
            key = due + names[start]
            tx.set(key, sealed(key, b"".join(others)))

    def ahead_us(self, now_us: int) -> int:
        """How far the time by which records are kept is ahead of ``now_us``; negative: behind."""
        return 0 if self.retention is None else self.retention.now_us() - now_us

    def once(
        self,
        tx: Transaction,
        request_id: str,
        content: bytes,
        work: Callable[[], bytes],
        *,
        now_us: int,
    ) -> tuple[bytes, bool]:
        """The answer of ``work``, which runs only for a new request, and whether it is a replay.

        When ``work`` raises, nothing is recorded: the same request may succeed later.
        """
        earlier = self.replay(tx, request_id, content)
        if earlier is not None:
            return earlier, True
        answer = work()
        self.remember(tx, request_id, content, answer, now_us=now_us)
        return answer, False

    def sweep(self, tx: Transaction, *, now_us: int, limit: int = SWEEP_LIMIT) -> int:
        """Removes records whose time is over; says how many.

        It ends when nothing is left to remove, or with the key of the index that makes it ``limit``
        records or more.
        """
        begin = self._due(0)
        names_at = len(begin)
        end = self._due(max(0, now_us) // 1_000_000)
        removed = 0
        while removed < limit:
            part = min(_SWEEP_PART, limit - removed)
            pairs = tx.range(begin, end, limit=part)
            for key, others in pairs:
                if not is_intact(key, others):
                    continue  # It may name records whose time has not come: an audit finds it.
                names = others[:-CHECK_BYTES]
                for name in (key[names_at:], *_split(names)):
                    tx.clear(self._prefix + name)
                    removed += 1
                tx.clear(key)
                if removed >= limit:
                    break
            if len(pairs) < part:
                break
            begin = pairs[-1][0] + b"\x00"
        return removed

    def bounds(self) -> tuple[bytes, bytes]:
        """Between which keys the records are, for one who checks them all."""
        return self._prefix, self._prefix + b"\xff"

    def index_bounds(self) -> tuple[bytes, bytes]:
        """Between which keys the index is."""
        return self._expiries, self._expiries + b"\xff"

    def named(self, key: bytes, value: bytes) -> list[bytes]:
        """The keys of the records that a record of the index names."""
        first = key[len(self._expiries) + _SECOND_BYTES :]
        return [self._prefix + name for name in (first, *_split(unsealed(key, value)))]

    def _due(self, second: int) -> bytes:
        return self._expiries + second.to_bytes(_SECOND_BYTES, "big")


def answer_in(record: bytes, request_id: str, content: bytes) -> bytes:
    """The answer in a record; raises ``RequestIdReusedError`` unless it is of this content."""
    if record[:FINGERPRINT_BYTES] != content:
        raise RequestIdReusedError(request_id)
    return record[FINGERPRINT_BYTES:]


async def sweep_for_ever(
    store: Store,
    records: RequestRecords,
    *,
    every_s: float,
    now_us: Callable[[], int],
    failed: Callable[[StoreError], None],
) -> NoReturn:
    """Removes old records until it is cancelled; runs as a task of the service.

    Sweeps until nothing is due, then rests for ``every_s`` seconds. A store that cannot be reached
    is reported to ``failed`` and tried again after the rest. Several processes may do it at once.
    """
    retention, rest_s = records.retention, 0.0
    while True:
        is_due = rest_s <= 0
        if is_due:
            rest_s = every_s
        try:
            until_us = now_us() if retention is None else await retention.advance(store)
            if is_due:
                await _sweep_all(store, records, until_us)
        except StoreError as error:
            failed(error)
        # Time goes on during a long rest, too.
        part_s = min(rest_s, STEP_S)
        await asyncio.sleep(part_s)
        rest_s -= part_s


async def _sweep_all(store: Store, records: RequestRecords, until_us: int) -> None:
    removed = SWEEP_LIMIT
    while removed >= SWEEP_LIMIT:
        sweep = Operation(partial(records.sweep, now_us=until_us))
        removed = (await store.commit(sweep)).result


def _split(names: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(names):
        end = start + 1 + names[start]
        yield names[start + 1 : end]
        start = end
