"""Request records: replay, reuse, and how long they are kept."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.store.errors import RequestIdReusedError, StoreError, StoreUnavailableError
from services.store.open import open_store
from services.store.port import Committed, Operation, ReadTransaction, Store, T, Transaction
from services.store.requests import (
    FINGERPRINT_BYTES,
    INDEXED,
    SHORT_BYTES,
    SWEEP_LIMIT,
    RequestRecords,
    fingerprint,
    sweep_for_ever,
)
from tests.support.deadline import DEADLINE_S
from tests.support.seeds import chosen_seed

SECOND_US = 1_000_000
START_US = 1_800_000_000 * SECOND_US
KEEP_S = 60
RECORDS = RequestRecords("test", keep_s=KEEP_S)
CONTENT = fingerprint("Method", b"content")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(f"lmdb://{tmp_path}/store")
    yield store
    await store.close()


async def once(
    store: Store,
    request_id: str,
    *,
    content: bytes = CONTENT,
    answer: bytes = b"answer",
    now_us: int = START_US,
) -> tuple[bytes, bool]:
    def run(tx: Transaction) -> tuple[bytes, bool]:
        def work() -> bytes:
            applied = int.from_bytes(tx.get(b"applied") or b"", "little")
            tx.set(b"applied", (applied + 1).to_bytes(8, "little"))
            return answer

        return RECORDS.once(tx, request_id, content, work, now_us=now_us)

    return (await store.commit(Operation(run))).result


async def applied(store: Store) -> int:
    value = (await store.read(lambda tx: tx.get(b"applied"))).result
    return int.from_bytes(value or b"", "little", signed=True)


async def sweep(store: Store, now_us: int, limit: int = SWEEP_LIMIT) -> int:
    operation = Operation(lambda tx: RECORDS.sweep(tx, now_us=now_us, limit=limit))
    return (await store.commit(operation)).result


async def test_a_repeat_is_answered_without_doing_it_again(store: Store) -> None:
    assert await once(store, "a", answer=b"first") == (b"first", False)
    assert await once(store, "a", answer=b"second") == (b"first", True)
    assert await applied(store) == 1


async def test_an_empty_answer_is_replayed_as_such(store: Store) -> None:
    assert await once(store, "a", answer=b"") == (b"", False)
    assert await once(store, "a", answer=b"x") == (b"", True)


async def test_the_same_id_for_another_content_or_method_is_refused(store: Store) -> None:
    await once(store, "a")
    for other in (fingerprint("Method", b"other"), fingerprint("Other", b"content")):
        with pytest.raises(RequestIdReusedError):
            await once(store, "a", content=other)
    assert await applied(store) == 1


async def test_work_that_fails_leaves_its_id_unused(store: Store) -> None:
    def run(tx: Transaction) -> tuple[bytes, bool]:
        return RECORDS.once(tx, "a", CONTENT, fail, now_us=START_US)

    def fail() -> bytes:
        raise LookupError

    with pytest.raises(LookupError):
        await store.commit(Operation(run))
    assert await once(store, "a") == (b"answer", False)


async def test_of_concurrent_repeats_one_is_applied(store: Store) -> None:
    answers = await asyncio.gather(
        *(once(store, "same", answer=str(number).encode()) for number in range(50))
    )
    assert len({answer for answer, _ in answers}) == 1
    assert sum(not replayed for _, replayed in answers) == 1
    assert await applied(store) == 1


def test_fingerprints_do_not_run_method_and_content_together() -> None:
    assert fingerprint("ab", b"c") != fingerprint("a", b"bc")
    assert len(fingerprint("", b"")) == FINGERPRINT_BYTES


async def test_records_are_swept_after_their_time_and_not_before(store: Store) -> None:
    seed = chosen_seed()
    chance = random.Random(seed)
    ages_us = [chance.randrange(3 * KEEP_S * SECOND_US) for _ in range(100)]
    for number, age_us in enumerate(ages_us):
        await once(store, str(number), now_us=START_US - age_us)
    while await sweep(store, START_US, limit=7):
        pass
    for number, age_us in enumerate(ages_us):
        _, replayed = await once(store, str(number))
        if age_us <= KEEP_S * SECOND_US:
            assert replayed
        if age_us > (KEEP_S + 2) * SECOND_US:
            assert not replayed


async def test_a_sweep_leaves_no_trace_of_a_record(store: Store) -> None:
    def everything(tx: ReadTransaction) -> list[tuple[bytes, bytes]]:
        return tx.range(b"", b"\xff")

    await once(store, "applied")
    await sweep(store, START_US + 2 * KEEP_S * SECOND_US)
    before = (await store.read(everything)).result
    for number in range(5):
        await once(store, str(number))
    assert await sweep(store, START_US + 2 * KEEP_S * SECOND_US) == 5
    after = (await store.read(everything)).result
    assert [key for key, _ in after] == [key for key, _ in before]


async def test_records_that_were_made_together_are_swept_together(store: Store) -> None:
    made = 3 * INDEXED + 5
    records = {RECORDS.key(str(number)): CONTENT + b"%d" % number for number in range(made)}

    def run(tx: Transaction) -> None:
        RECORDS.remember_all(tx, records, now_us=START_US)

    await store.commit(Operation(run))
    for number in range(made):
        assert await once(store, str(number)) == (b"%d" % number, True)
    later_us = START_US + 2 * KEEP_S * SECOND_US
    assert await sweep(store, later_us, limit=INDEXED + 1) == 2 * INDEXED
    assert await sweep(store, later_us) == INDEXED + 5
    assert await sweep(store, later_us) == 0
    assert (await store.read(lambda tx: tx.range(b"", b"\xff"))).result == []


async def test_ids_of_every_length_are_kept_apart_and_swept(store: Store) -> None:
    alike = "x" * (SHORT_BYTES - 1)
    ids = [alike + "x" * more + end for more in range(0, 41, 8) for end in ("", "a", "b")]
    for number, request_id in enumerate(ids):
        assert await once(store, request_id, answer=b"%d" % number) == (b"%d" % number, False)
    for number, request_id in enumerate(ids):
        assert await once(store, request_id) == (b"%d" % number, True)
    assert max(len(RECORDS.key(request_id)) for request_id in ids) == len(RECORDS.key(alike)) + 1
    assert await sweep(store, START_US + 2 * KEEP_S * SECOND_US) == len(ids)
    assert (await store.read(lambda tx: tx.range(b"", b"\xff"))).result == [
        (b"applied", len(ids).to_bytes(8, "little"))
    ]


async def test_records_of_ids_that_are_counted_up_stand_together() -> None:
    keys = [RECORDS.key(f"client-7-{number:010}") for number in range(1000)]
    assert keys == sorted(keys)


async def test_services_do_not_share_ids(store: Store) -> None:
    await once(store, "a")
    other = RequestRecords("other", keep_s=KEEP_S)
    run = Operation(lambda tx: other.replay(tx, "a", fingerprint("Other", b"")))
    assert (await store.commit(run)).result is None


class FailsOnce:
    """A store whose first commit fails; tells what the others returned."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._failed = False
        self.results: asyncio.Queue[object] = asyncio.Queue()
        self.read = store.read
        self.close = store.close

    async def commit(self, operation: Operation[T]) -> Committed[T]:
        if not self._failed:
            self._failed = True
            raise StoreUnavailableError("for now")
        committed = await self._store.commit(operation)
        await self.results.put(committed.result)
        return committed


async def test_the_sweeper_clears_a_backlog_and_outlives_a_failure_of_the_store(
    store: Store,
) -> None:
    rest = 3

    def remember_many(tx: Transaction) -> None:
        for number in range(SWEEP_LIMIT + rest):
            RECORDS.remember(tx, str(number), CONTENT, b"", now_us=START_US)

    await store.commit(Operation(remember_many))
    failures: list[StoreError] = []
    later_us = START_US + 2 * KEEP_S * SECOND_US
    failing = FailsOnce(store)
    sweeper = asyncio.create_task(
        sweep_for_ever(
            failing, RECORDS, every_s=0.01, now_us=lambda: later_us, failed=failures.append
        )
    )
    async with asyncio.timeout(DEADLINE_S):
        removed = [await failing.results.get() for _ in range(3)]
    sweeper.cancel()
    await asyncio.gather(sweeper, return_exceptions=True)
    assert removed == [SWEEP_LIMIT, rest, 0]
    assert len(failures) == 1
