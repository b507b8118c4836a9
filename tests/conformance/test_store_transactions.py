"""What a transaction reads and writes: keys, ranges, counters and the limits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from operator import methodcaller

import pytest

from services.store.errors import (
    AppendedRangeError,
    KeyInvalidError,
    OperationTooLargeError,
)
from services.store.port import (
    MAX_APPENDS,
    MAX_KEY_BYTES,
    MAX_OPERATION_BYTES,
    MAX_VALUE_BYTES,
    STAMP_BYTES,
    Committed,
    Operation,
    ReadTransaction,
    Store,
    Transaction,
)
from tests.support.store_model import Model, random_steps, run_steps

Pairs = list[tuple[bytes, bytes]]
ABC = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]


async def commit(store: Store, run: Callable[[Transaction], object]) -> Committed[object]:
    return await store.commit(Operation(run))


async def put(store: Store, pairs: Pairs) -> None:
    def write(tx: Transaction) -> None:
        for key, value in pairs:
            tx.set(key, value)

    await commit(store, write)


async def everything(store: Store) -> Pairs:
    return (await store.read(lambda tx: tx.range(b"", b"\xff"))).result


async def test_an_empty_store_holds_nothing(store: Store) -> None:
    def look(tx: ReadTransaction) -> tuple[object, ...]:
        return tx.get(b"k"), tx.get_many([b"k", b"l"]), tx.range(b"", b"\xff")

    assert (await store.read(look)).result == (None, [None, None], [])


async def test_what_was_set_is_read_by_later_operations_and_reads(store: Store) -> None:
    await put(store, [*ABC, (b"empty", b"")])
    keys = [b"c", b"missing", b"a", b"empty", b"a"]
    expected = [b"3", None, b"1", b"", b"1"]
    assert (await store.read(lambda tx: tx.get_many(keys))).result == expected
    assert (await commit(store, lambda tx: tx.get_many(keys))).result == expected
    assert (await store.read(lambda tx: tx.get(b"b"))).result == b"2"


async def test_an_operation_reads_its_own_writes(store: Store) -> None:
    await put(store, ABC)

    def run(tx: Transaction) -> tuple[object, ...]:
        tx.set(b"b", b"new")
        tx.clear(b"c")
        tx.set(b"d", b"4")
        return tx.get(b"b"), tx.get(b"c"), tx.get_many([b"a", b"d"]), tx.range(b"", b"\xff")

    expected = [(b"a", b"1"), (b"b", b"new"), (b"d", b"4")]
    assert (await commit(store, run)).result == (b"new", None, [b"1", b"4"], expected)
    assert await everything(store) == expected


async def test_a_range_holds_its_begin_but_not_its_end(store: Store) -> None:
    await put(store, ABC)
    assert (await store.read(lambda tx: tx.range(b"a", b"c"))).result == ABC[:2]
    assert (await store.read(lambda tx: tx.range(b"a\x00", b"c\x00"))).result == ABC[1:]
    assert (await store.read(lambda tx: tx.range(b"c", b"a"))).result == []
    assert (await store.read(lambda tx: tx.range(b"b", b"b"))).result == []


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 4])
async def test_a_limited_range_gives_the_first_pairs_of_its_direction(
    store: Store, limit: int, reverse: bool
) -> None:
    await put(store, ABC)
    pairs = ABC[::-1] if reverse else ABC
    found = await store.read(lambda tx: tx.range(b"a", b"d", limit=limit, reverse=reverse))
    assert found.result == pairs[:limit]


async def test_a_long_range_is_whole_and_in_order(store: Store) -> None:
    pairs = [(b"%05d" % number, b"v" * (number % 200)) for number in range(3_000)]
    await put(store, pairs)
    assert await everything(store) == pairs
    backwards = await store.read(lambda tx: tx.range(b"", b"\xff", reverse=True))
    assert backwards.result == pairs[::-1]
    limited = await commit(store, lambda tx: tx.range(b"00500", b"\xff", limit=1_500))
    assert limited.result == pairs[500:2_000]


async def test_a_cleared_range_loses_what_lies_in_it_and_nothing_else(store: Store) -> None:
    await put(store, [*ABC, (b"b\xff", b"in"), (b"d", b"4")])
    await commit(store, lambda tx: tx.clear_range(b"b", b"d"))
    assert await everything(store) == [(b"a", b"1"), (b"d", b"4")]
    await commit(store, lambda tx: tx.clear_range(b"d", b"a"))
    await commit(store, lambda tx: tx.clear_range(b"", b"\xff\xff"))
    assert await everything(store) == []


async def test_what_is_written_after_a_clear_range_stays(store: Store) -> None:
    await put(store, ABC)

    def run(tx: Transaction) -> Pairs:
        tx.set(b"b1", b"gone")
        tx.clear_range(b"a", b"c")
        tx.set(b"b", b"new")
        tx.add(b"b2", 7)
        return tx.range(b"", b"\xff", limit=2)

    counter = (7).to_bytes(8, "little")
    assert (await commit(store, run)).result == [(b"b", b"new"), (b"b2", counter)]
    assert await everything(store) == [(b"b", b"new"), (b"b2", counter), (b"c", b"3")]


async def test_concurrent_additions_to_a_counter_are_all_counted(store: Store) -> None:
    deltas = [*range(-20, 50), 2**62, -(2**62)]

    def add(delta: int, tx: Transaction) -> None:
        tx.add(b"n", delta)

    await asyncio.gather(*(commit(store, partial(add, delta)) for delta in deltas))
    value = (await store.read(lambda tx: tx.get(b"n"))).result
    assert value is not None
    assert int.from_bytes(value, "little", signed=True) == sum(deltas)


async def test_a_counter_wraps_beyond_64_bits(store: Store) -> None:
    await commit(store, lambda tx: tx.add(b"n", 2**63 - 1))
    await commit(store, lambda tx: tx.add(b"n", 1))
    value = (await store.read(lambda tx: tx.get(b"n"))).result
    assert value == (-(2**63)).to_bytes(8, "little", signed=True)


async def test_an_operation_reads_a_counter_that_it_adds_to(store: Store) -> None:
    await commit(store, lambda tx: tx.add(b"n", 5))

    def run(tx: Transaction) -> tuple[object, ...]:
        tx.add(b"n", 3)
        tx.add(b"m", -1)
        return tx.get(b"n"), tx.get_many([b"m"]), tx.range(b"m", b"o")

    eight, minus_one = (8).to_bytes(8, "little"), b"\xff" * 8
    expected = (eight, [minus_one], [(b"m", minus_one), (b"n", eight)])
    assert (await commit(store, run)).result == expected
    assert await everything(store) == expected[2]


async def test_an_operation_cannot_touch_what_it_appended(store: Store) -> None:
    def appended(then: Callable[[Transaction], object]) -> Callable[[Transaction], object]:
        def run(tx: Transaction) -> object:
            tx.append(b"log/", b"entry")
            return then(tx)

        return run

    for touch in (
        lambda tx: tx.range(b"log/", b"log0"),
        lambda tx: tx.range(b"a", b"z", limit=1),
        lambda tx: tx.range(b"log/\x01", b"log/\x02"),
        lambda tx: tx.clear_range(b"log/", b"log/\x01"),
        lambda tx: tx.get(b"log/" + b"s" * STAMP_BYTES),
    ):
        with pytest.raises(AppendedRangeError):
            await commit(store, appended(touch))
    assert await everything(store) == []
    beside = await commit(store, appended(lambda tx: tx.range(b"log0", b"z")))
    assert beside.result == []
    assert [value for _, value in await everything(store)] == [b"entry"]


@pytest.mark.parametrize("key", [b"", b"\xff", b"\xffversion", b"k" * (MAX_KEY_BYTES + 1)])
async def test_a_key_outside_the_limits_is_refused(store: Store, key: bytes) -> None:
    for run in (
        lambda tx: tx.set(key, b"v"),
        lambda tx: tx.get(key),
        lambda tx: tx.clear(key),
        lambda tx: tx.add(key, 1),
    ):
        with pytest.raises(KeyInvalidError):
            await commit(store, run)


async def test_the_largest_key_and_value_are_kept(store: Store) -> None:
    pairs = [(b"\x00" * MAX_KEY_BYTES, b"v"), (b"k" * MAX_KEY_BYTES, b"w" * MAX_VALUE_BYTES)]
    await put(store, pairs)
    await commit(store, lambda tx: tx.append(b"p" * (MAX_KEY_BYTES - STAMP_BYTES), b"x"))
    found = await everything(store)
    assert found[:2] == pairs
    assert [value for _, value in found[2:]] == [b"x"]


async def test_an_operation_above_the_limits_writes_nothing(store: Store) -> None:
    def large_value(tx: Transaction) -> None:
        tx.set(b"before", b"v")
        tx.set(b"k", b"v" * (MAX_VALUE_BYTES + 1))

    def many_values(tx: Transaction) -> None:
        for number in range(MAX_OPERATION_BYTES // MAX_VALUE_BYTES):
            tx.set(b"%d" % number, b"v" * MAX_VALUE_BYTES)

    def many_entries(tx: Transaction) -> None:
        for _ in range(MAX_APPENDS + 1):
            tx.append(b"log", b"")

    for run in (large_value, many_values, many_entries):
        with pytest.raises(OperationTooLargeError):
            await commit(store, run)
    assert await everything(store) == []


async def test_a_read_above_the_limits_is_refused(store: Store) -> None:
    for number in range(11):
        await put(store, [(b"%02d" % number, b"v" * MAX_VALUE_BYTES)])
    with pytest.raises(OperationTooLargeError):
        await store.read(lambda tx: tx.range(b"", b"\xff"))
    assert len((await store.read(lambda tx: tx.range(b"", b"\xff", limit=9))).result) == 9


async def test_many_large_operations_at_once_are_all_committed(store: Store) -> None:
    pairs = [(b"%02d" % number, b"v" * 90_000) for number in range(25)]
    await asyncio.gather(*(put(store, [pair]) for pair in pairs))
    for key, value in pairs:
        assert (await store.read(methodcaller("get", key))).result == value


async def test_random_operations_do_what_a_simple_map_does(store: Store, seed: int) -> None:
    """Several operations at once, so that they share engine transactions and see each other."""
    dice, model = random.Random(seed), Model()
    for _ in range(25):
        scripts = [random_steps(dice) for _ in range(dice.randint(1, 8))]
        operations = [Operation(partial(run_steps, steps), "g") for steps in scripts]
        answers = await asyncio.gather(*(store.commit(operation) for operation in operations))
        for steps, answer in zip(scripts, answers, strict=True):
            assert answer.result == run_steps(steps, model)
        assert await everything(store) == model.range(b"", b"\xff")
