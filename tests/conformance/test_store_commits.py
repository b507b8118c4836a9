"""Commits: order, isolation within a group, versions, and what happens at the limits of a store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from services.store.errors import (
    OperationTooLargeError,
    StoreClosedError,
    StoreOverloadedError,
    VersionUnknownError,
)
from services.store.group_commit import Limits
from services.store.port import STAMP_BYTES, Operation, ReadTransaction, Store, Transaction
from tests.support.store_homes import Home


class RefusedError(Exception):
    """What an operation of these tests raises."""


def append(value: bytes, tx: Transaction) -> None:
    tx.append(b"log/", value)


async def log_of(store: Store) -> list[bytes]:
    entries = (await store.read(lambda tx: tx.range(b"log/", b"log0"))).result
    assert all(len(key) == len(b"log/") + STAMP_BYTES for key, _ in entries)
    return [value for _, value in entries]


async def test_entries_of_later_commits_sort_after_earlier_ones(store: Store) -> None:
    values = [b"%d" % number for number in range(30)]
    for value in values:
        await store.commit(Operation(partial(append, value)))
    assert await log_of(store) == values


async def test_entries_of_one_operation_keep_the_order_of_the_calls(store: Store) -> None:
    values = [b"%d" % number for number in range(600)]

    def run(tx: Transaction) -> None:
        for value in values:
            tx.append(b"log/", value)
            tx.append(b"other/", value)

    await store.commit(Operation(run))
    assert await log_of(store) == values
    other = (await store.read(lambda tx: tx.range(b"other/", b"other0"))).result
    assert [value for _, value in other] == values


async def test_operations_of_a_group_are_committed_in_the_order_of_their_arrival(
    store: Store,
) -> None:
    def read_log(tx: Transaction) -> int:
        return len(tx.range(b"log/", b"log0"))

    runs: list[Callable[[Transaction], object]] = []
    for number in range(60):
        runs.append(partial(append, b"%d" % number))
        if number % 20 == 7:
            runs.append(read_log)
    answers = await asyncio.gather(*(store.commit(Operation(run, "g")) for run in runs))
    assert await log_of(store) == [b"%d" % number for number in range(60)]
    # One that reads what others of its group append sees those before it and none behind it.
    assert [answer.result for answer in answers if answer.result is not None] == [8, 28, 48]
    versions = [answer.version for answer in answers]
    assert versions == sorted(versions)


async def test_an_operation_that_raises_leaves_no_trace_and_hurts_no_neighbour(
    store: Store,
) -> None:
    await store.commit(Operation(lambda tx: tx.set(b"kept", b"old")))

    def good(number: int, tx: Transaction) -> bytes | None:
        tx.set(b"good/%d" % number, b"v")
        tx.append(b"log/", b"%d" % number)
        return tx.get(b"kept")

    def bad(tx: Transaction) -> None:
        tx.set(b"kept", b"new")
        tx.set(b"bad", b"v")
        tx.clear_range(b"good/", b"good0")
        tx.add(b"count", 1)
        tx.append(b"log/", b"bad")
        raise RefusedError("no")

    runs = [bad if number % 3 == 1 else partial(good, number) for number in range(12)]
    answers = await asyncio.gather(
        *(store.commit(Operation(run, "g")) for run in runs), return_exceptions=True
    )
    for number, answer in enumerate(answers):
        if number % 3 == 1:
            assert isinstance(answer, RefusedError)
        else:
            assert not isinstance(answer, BaseException)
            assert answer.result == b"old"
    survivors = [number for number in range(12) if number % 3 != 1]
    assert await log_of(store) == [b"%d" % number for number in survivors]
    found = (await store.read(lambda tx: tx.range(b"", b"log/"))).result
    expected = sorted([(b"good/%d" % number, b"v") for number in survivors] + [(b"kept", b"old")])
    assert found == expected


async def test_versions_rise_and_reads_are_at_least_as_fresh(store: Store) -> None:
    last = (await store.read(lambda tx: tx.get(b"k"))).version
    for number in range(10):
        value = b"%d" % number
        written = await store.commit(Operation(partial(_put, b"k", value)))
        assert written.version > max(last, 0)
        read = await store.read(lambda tx: tx.get(b"k"), at_least_version=written.version)
        assert read.result == value
        assert read.version >= written.version
        unchanged = await store.commit(Operation(lambda tx: tx.get(b"k")))
        assert unchanged.result == value
        assert unchanged.version >= written.version
        last = written.version


def _put(key: bytes, value: bytes, tx: Transaction) -> None:
    tx.set(key, value)


async def test_a_version_that_no_commit_has_had_is_refused(store: Store) -> None:
    written = await store.commit(Operation(partial(_put, b"k", b"v")))
    with pytest.raises(VersionUnknownError):
        await store.read(lambda tx: tx.get(b"k"), at_least_version=written.version + 10**15)


async def test_versions_and_data_go_on_where_they_were_after_reopening(home: Home) -> None:
    version = 0
    for number in range(3):
        store = await home.open()
        assert (await store.read(lambda tx: len(tx.range(b"", b"\xff")))).result == number
        written = await store.commit(Operation(partial(append, b"%d" % number)))
        assert written.version > version
        version = written.version
        await store.close()
    store = await home.open()
    assert await log_of(store) == [b"0", b"1", b"2"]
    assert (await store.read(lambda tx: tx.get(b"k"), at_least_version=version)).version >= version
    await store.close()


async def test_cancelling_the_caller_does_not_undo_the_operation(home: Home) -> None:
    store = await home.open()
    waiting = [
        asyncio.create_task(store.commit(Operation(partial(append, b"%d" % number), "g")))
        for number in range(6)
    ]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await store.close()
    store = await home.open()
    assert await log_of(store) == [b"%d" % number for number in range(6)]
    await store.close()


async def test_closing_finishes_what_was_asked_and_refuses_what_comes_later(home: Home) -> None:
    store = await home.open()
    asked = [
        asyncio.create_task(store.commit(Operation(partial(append, b"%d" % number), "g")))
        for number in range(20)
    ]
    reading = asyncio.create_task(store.read(lambda tx: tx.get(b"k")))
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), store.close())
    assert all(task.done() and task.result().version for task in asked)
    assert (await reading).result is None
    with pytest.raises(StoreClosedError):
        await store.commit(Operation(partial(append, b"late")))
    with pytest.raises(StoreClosedError):
        await store.read(lambda tx: tx.get(b"k"))
    store = await home.open()
    assert await log_of(store) == [b"%d" % number for number in range(20)]
    await store.close()


async def test_a_store_refuses_more_than_it_can_queue_and_does_nothing_of_it(home: Home) -> None:
    store = await home.open(Limits(waiting_operations=5))
    answers = await asyncio.gather(
        *(store.commit(Operation(partial(append, b"%d" % number), "g")) for number in range(8)),
        return_exceptions=True,
    )
    assert [isinstance(answer, StoreOverloadedError) for answer in answers] == [False] * 5 + [
        True
    ] * 3
    assert await log_of(store) == [b"0", b"1", b"2", b"3", b"4"]
    await store.commit(Operation(partial(append, b"later")))
    assert (await log_of(store))[-1] == b"later"
    await store.close()


async def test_an_operation_too_large_hurts_no_neighbour(store: Store) -> None:
    def large(tx: Transaction) -> None:
        tx.append(b"log/", b"large")
        for number in range(20):
            tx.set(b"%d" % number, b"v" * 90_000)

    runs: list[Callable[[Transaction], None]] = [
        partial(append, b"before"),
        large,
        partial(append, b"behind"),
    ]
    answers = await asyncio.gather(
        *(store.commit(Operation(run, "g")) for run in runs), return_exceptions=True
    )
    assert isinstance(answers[1], OperationTooLargeError)
    assert await log_of(store) == [b"before", b"behind"]


async def test_what_a_read_raises_reaches_its_caller(store: Store) -> None:
    def run(tx: ReadTransaction) -> None:
        tx.get(b"k")
        raise RefusedError("no")

    with pytest.raises(RefusedError):
        await store.read(run)


async def test_the_reads_that_an_operation_names_are_only_a_hint(store: Store) -> None:
    await store.commit(Operation(partial(_put, b"a", b"1")))
    named = (b"a", b"missing", b"a")
    read = Operation(lambda tx: tx.get_many([b"a", b"b", b"missing"]), "g", named)
    assert (await store.commit(read)).result == [b"1", None, None]
