"""Request ids: each mutation is applied once, however often it is repeated.

A mutation's operation looks its request id up first, and writes the record of its answer in the
transaction of its effect; so an outcome that the caller never learned is had again by repeating the
request. Records are kept for at least a set time and are found for removal by an expiry index.

What the answer's bytes mean is the service's business. An answer must hold no secret: it is stored.

Stored: the record's value is a fingerprint of FINGERPRINT_BYTES and then the answer; the index has
a key for each record, sorted by the second in which the record may go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import NoReturn

from services.store.errors import RequestIdReusedError, StoreError
from services.store.keys import Part, Subspace
from services.store.port import Operation, Store, Transaction

FINGERPRINT_BYTES = 16
SWEEP_LIMIT = 500
"""Records that one sweeping operation removes at most: it stays small beside the service's work."""


def fingerprint(method: str, content: bytes) -> bytes:
    """Names what was asked for: the method, and the request without regard to who sends it.

    ``content`` is the request in one canonical form: ``SerializeToString(deterministic=True)``.
    """
    digest = blake2b(method.encode(), digest_size=FINGERPRINT_BYTES)
    digest.update(b"\x00")
    digest.update(content)
    return digest.digest()


class RequestRecords:
    """The records of one service; an id is used once in all its methods and accounts."""

    __slots__ = ("_expiries", "_keep_s", "_records")

    def __init__(self, *subspace: Part, keep_s: int) -> None:
        """``keep_s``: for how many seconds at least a record is kept."""
        self._records = Subspace(*subspace, "request")
        self._expiries = Subspace(*subspace, "request-expiry")
        self._keep_s = keep_s

    def key(self, request_id: str) -> bytes:
        """The record's key, for ``Operation.reads``."""
        return self._records.key(request_id)

    def replay(self, tx: Transaction, request_id: str, content: bytes) -> bytes | None:
        """The answer that the request had before, or None when it is new.

        ``content`` is its ``fingerprint``. Raises ``RequestIdReusedError`` when the id was used for
        another request.
        """
        record = tx.get(self._records.key(request_id))
        if record is None:
            return None
        if record[:FINGERPRINT_BYTES] != content:
            raise RequestIdReusedError(request_id)
        return record[FINGERPRINT_BYTES:]

    def remember(
        self, tx: Transaction, request_id: str, content: bytes, answer: bytes, *, now_us: int
    ) -> None:
        """Records the answer to a request that ``replay`` did not know."""
        # Rounded up, so that a record is never kept for less than was promised.
        expires_s = -(-now_us // 1_000_000) + self._keep_s
        tx.set(self._records.key(request_id), content + answer)
        tx.set(self._expiries.key(expires_s, request_id), b"")

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
        """Removes at most ``limit`` records whose time is over; says how many it removed."""
        begin, _ = self._expiries.range()
        due = tx.range(begin, self._expiries.key(now_us // 1_000_000), limit=limit)
        for key, _ in due:
            _, request_id = self._expiries.parts(key)
            tx.clear(self._records.key(request_id))
            tx.clear(key)
        return len(due)


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
            while removed == SWEEP_LIMIT:
                sweep = Operation(partial(records.sweep, now_us=now_us()))
                removed = (await store.commit(sweep)).result
        except StoreError as error:
            failed(error)
        await asyncio.sleep(every_s)
