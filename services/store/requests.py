"""Request ids: each mutation is applied once, however often it is repeated.

A mutation's operation looks its request id up first, and writes the record of its answer in the
transaction of its effect; so an outcome that the caller never learned is had again by repeating the
request. Records are kept for at least a set time and are found for removal by an expiry index.

What the answer's bytes mean is the service's business. An answer must hold no secret: it is stored.

Stored: a record's key ends with the id's digest of ID_BYTES, so that every key is as short, and its
value is a fingerprint of FINGERPRINT_BYTES and then the answer. The index has a key for up to
INDEXED records that were made together: the second in which they may go, then the digest of the
first; its value has those of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from typing import NoReturn

from services.store.errors import RequestIdReusedError, StoreError
from services.store.keys import Part, Subspace
from services.store.port import Operation, Store, Transaction

FINGERPRINT_BYTES = 16
ID_BYTES = 16
INDEXED = 64
"""Records that share a key of the index: few enough for a sweep that stops between two keys."""
SWEEP_LIMIT = 500
"""Records after which one sweeping operation ends: it stays small beside the service's work."""


def fingerprint(method: str, content: bytes) -> bytes:
    """Names what was asked for: the method, and the request without regard to who sends it.

    ``content`` is the request in one canonical form: ``SerializeToString(deterministic=True)``.
    """
    return blake2b(method.encode() + b"\x00" + content, digest_size=FINGERPRINT_BYTES).digest()


class RequestRecords:
    """The records of one service; an id is used once in all its methods and accounts."""

    __slots__ = ("_expiries", "_keep_s", "_prefix")

    def __init__(self, *subspace: Part, keep_s: int) -> None:
        """``keep_s``: for how many seconds at least a record is kept."""
        self._prefix = Subspace(*subspace, "r").prefix
        self._expiries = Subspace(*subspace, "x")
        self._keep_s = keep_s

    def key(self, request_id: str) -> bytes:
        """The record's key, for ``Operation.reads``, ``answer_in`` and ``remember_all``."""
        return self._prefix + blake2b(request_id.encode(), digest_size=ID_BYTES).digest()

    def replay(self, tx: Transaction, request_id: str, content: bytes) -> bytes | None:
        """The answer that the request had before, or None when it is new.

        ``content`` is its ``fingerprint``. Raises ``RequestIdReusedError`` when the id was used for
        another request.
        """
        record = tx.get(self.key(request_id))
        return None if record is None else answer_in(record, request_id, content)

    def remember(
        self, tx: Transaction, request_id: str, content: bytes, answer: bytes, *, now_us: int
    ) -> None:
        """Records the answer to a request that ``replay`` did not know."""
        self.remember_all(tx, {self.key(request_id): content + answer}, now_us=now_us)

    def remember_all(self, tx: Transaction, records: Mapping[bytes, bytes], *, now_us: int) -> None:
        """Writes new records: by the ``key`` of its id, each fingerprint with its answer behind."""
        for key, record in records.items():
            tx.set(key, record)
        # Rounded up, so that a record is never kept for less than was promised.
        expires_s = -(-now_us // 1_000_000) + self._keep_s
        digests = [key[-ID_BYTES:] for key in records]
        due = self._expiries.key(expires_s)
        for start in range(0, len(digests), INDEXED):
            others = digests[start + 1 : start + INDEXED]
            tx.set(due + digests[start], b"".join(others))

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
        begin, _ = self._expiries.range()
        removed = 0
        for key, others in tx.range(begin, self._expiries.key(now_us // 1_000_000), limit=limit):
            digests = key[-ID_BYTES:] + others
            for start in range(0, len(digests), ID_BYTES):
                tx.clear(self._prefix + digests[start : start + ID_BYTES])
            tx.clear(key)
            removed += len(digests) // ID_BYTES
            if removed >= limit:
                break
        return removed


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
    while True:
        try:
            removed = SWEEP_LIMIT
            while removed >= SWEEP_LIMIT:
                sweep = Operation(partial(records.sweep, now_us=now_us()))
                removed = (await store.commit(sweep)).result
        except StoreError as error:
            failed(error)
        await asyncio.sleep(every_s)
