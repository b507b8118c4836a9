"""The embedded engine's log and checkpoints: nothing is lost between the log and the tree."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import lmdb as lmdb_library
import pytest

from services.store.engines import lmdb
from services.store.engines.lmdb import LARGE_KEYS
from services.store.engines.lmdb_tree import Tree, TreeError, TreeWriter
from services.store.engines.redo import checkpoint, memtable
from services.store.engines.redo.log import paths
from services.store.engines.redo.memtable import MemTable
from services.store.errors import StoreOverloadedError, StoreUnavailableError
from services.store.group_commit import Limits
from services.store.open import open_store
from services.store.port import Operation, ReadTransaction, Store, Transaction
from tests.support.deadline import DEADLINE_S
from tests.support.embedded_store import (
    SEGMENT,
    everything,
    killed,
    opened,
    put,
    ranged,
)
from tests.support.store_model import Model, random_steps, run_steps

pytestmark = pytest.mark.usefixtures("whole_checkpoints")


async def check_whole(store: Store, model: Model, dice: random.Random) -> None:
    assert (await store.read(everything)).result == model.range(b"", b"\xff")
    for _ in range(5):
        begin, end = sorted(dice.choice(b"abcd").to_bytes(1, "big") for _ in range(2))
        limit, reverse = dice.randrange(6), dice.random() < 0.5
        found = await store.read(
            partial(ranged, begin=begin, end=end, limit=limit, reverse=reverse)
        )
        assert found.result == model.range(begin, end, limit=limit, reverse=reverse)


@pytest.mark.parametrize("longest", [2, 1_000], ids=["reads in threads", "reads in the loop"])
async def test_any_course_of_commits_checkpoints_kills_and_openings_is_that_of_a_simple_map(
    tmp_path: Path, dice: random.Random, monkeypatch: pytest.MonkeyPatch, longest: int
) -> None:
    monkeypatch.setattr(lmdb, "_LONG_READ_PAIRS", longest)
    monkeypatch.setattr(checkpoint, "SLICE_KEYS", 3)
    monkeypatch.setattr(checkpoint, "TRANSACTION_KEYS", 7)
    monkeypatch.setattr(memtable, "_SCANNED_KEYS", 3)
    monkeypatch.setattr(memtable, "_SORTED_AT_ONCE", 4)
    model, directory, version = Model(), tmp_path / "0", 0
    for opening in range(12):
        monkeypatch.setattr(lmdb, "_SMALL_KEYS", dice.choice((0, 3, 10, 2_000)))
        size, large_keys = dice.choice((4096, 8192, SEGMENT)), dice.choice((1, 4, 8, LARGE_KEYS))
        async with opened(directory, size, large_keys=large_keys) as store:
            await check_whole(store, model, dice)
            assert (await store.read(everything)).version >= version
            for _ in range(dice.randrange(30)):
                scripts = [random_steps(dice) for _ in range(dice.choice((1, 1, 5)))]
                operations = [Operation(partial(run_steps, steps), "g") for steps in scripts]
                answers = await asyncio.gather(*(store.commit(each) for each in operations))
                for steps, answer in zip(scripts, answers, strict=True):
                    assert answer.result == run_steps(steps, model)
                    assert answer.version >= version
                    version = answer.version
                if dice.random() < 0.3:
                    await check_whole(store, model, dice)
            if dice.random() < 0.7:
                directory = killed(directory, tmp_path / str(opening + 1))


async def test_what_was_appended_and_counted_comes_back_from_the_log(tmp_path: Path) -> None:
    def run(number: int, tx: Transaction) -> None:
        tx.append(b"log/", b"%d" % number)
        tx.add(b"count", number)
        tx.clear_range(b"a", b"b")
        tx.add(b"a1", 1)

    async with opened(tmp_path / "store") as store:
        for number in range(35):
            await store.commit(Operation(partial(run, number)))
        expected = (await store.read(everything)).result
        copy = killed(tmp_path / "store", tmp_path / "copy")
    for directory in (copy, tmp_path / "store"):
        async with opened(directory) as store:
            assert (await store.read(everything)).result == expected
    assert expected[0] == (b"a1", (1).to_bytes(8, "little"))
    assert expected[1] == (b"count", sum(range(35)).to_bytes(8, "little"))
    assert [value for _, value in expected[2:]] == [b"%d" % number for number in range(35)]


async def test_a_closed_store_is_lmdb_alone_and_an_old_one_opens(tmp_path: Path) -> None:
    with (
        lmdb_library.open(str(tmp_path), map_size=1 << 20) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"old", b"1")
        transaction.put(b"\xffversion", (41).to_bytes(8, "big"))
    store = await open_store(f"lmdb://{tmp_path}")
    found = await store.read(everything)
    assert (found.result, found.version) == ([(b"old", b"1")], 41)
    assert (await store.commit(Operation(lambda tx: tx.set(b"new", b"2")))).version == 42
    assert len(paths(tmp_path)) == 1
    await store.close()
    assert paths(tmp_path) == []
    with lmdb_library.open(str(tmp_path)) as environment, environment.begin() as transaction:
        assert transaction.get(b"new") == b"2"
        assert transaction.get(b"\xffversion") == (42).to_bytes(8, "big")


async def test_a_store_that_is_only_read_gets_no_log(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert (await store.read(everything)).result == []
        assert (await store.commit(Operation(everything))).result == []
        assert paths(tmp_path) == []


async def test_a_damaged_log_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    async with opened(tmp_path / "store") as store:
        for number in range(5):
            await store.commit(Operation(partial(put, number, 10)))
        copy = killed(tmp_path / "store", tmp_path / "copy")
    (log,) = paths(copy)
    whole = log.read_bytes()
    log.write_bytes(whole[:4150] + b"x" + whole[4151:])
    with pytest.raises(StoreUnavailableError, match=r"redo-1\.log is damaged behind") as caught:
        await open_store(f"lmdb://{copy}")
    assert f"cannot open the store in {copy}: " in str(caught.value)
    assert "put the directory back from a backup" in str(caught.value)
    log.write_bytes(whole)
    async with opened(copy) as store:
        assert len((await store.read(everything)).result) == 5


class Gate:
    """Checkpoints that wait, or fail, until they may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.failing = False
        self.begun = 0
        self._write_to = checkpoint.write_to
        monkeypatch.setattr(lmdb, "write_to", self)

    def __call__(self, tree: Tree, table: MemTable, version: int, hurry: threading.Event) -> None:
        self.begun += 1
        self.open.wait(30)
        if self.failing:
            raise TreeError("No space left on device")
        self._write_to(tree, table, version, hurry)


async def test_memory_is_bounded_commits_wait_for_a_slow_checkpoint_and_more_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    async with opened(tmp_path / "store", limits=Limits(waiting_operations=5)) as store:
        done = 0
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    operation = Operation(partial(put, done, 100))
                    async with asyncio.timeout(1 if gate.begun else 30):
                        await store.commit(operation)
                except TimeoutError:
                    break
                done += 1
        assert done == 2 * SEGMENT // 4096
        waiting = [
            asyncio.create_task(store.commit(Operation(partial(put, 1_000 + number, 100))))
            for number in range(4)
        ]
        await asyncio.sleep(0)
        with pytest.raises(StoreOverloadedError):
            await store.commit(Operation(partial(put, 2_000, 100)))
        assert len((await store.read(everything)).result) == done
        copy = killed(tmp_path / "store", tmp_path / "copy")
        gate.open.set()
        await asyncio.gather(*waiting)
        assert len((await store.read(everything)).result) == done + 5
        assert len(paths(tmp_path / "store")) <= 3
    async with opened(copy) as store:
        assert len((await store.read(everything)).result) == done


async def test_a_checkpoint_that_fails_leaves_the_log_authoritative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    gate.open.set()
    gate.failing = True
    directory = tmp_path / "store"
    async with opened(directory) as store:
        written = 2 * SEGMENT // 4096
        for number in range(written):
            await store.commit(Operation(partial(put, number, 100)))
        for _ in range(3):
            with pytest.raises(StoreUnavailableError, match=r"cannot write .* make room there"):
                await store.commit(Operation(partial(put, written, 100)))
        assert len((await store.read(everything)).result) == written
        copy = killed(directory, tmp_path / "copy")
        gate.failing = False
        for number in range(written, written + 50):
            await store.commit(Operation(partial(put, number, 100)))
        assert len((await store.read(everything)).result) == written + 50
        gate.failing = True
    # It was closed while it could not write to the tree: then the log stays.
    assert paths(directory)
    gate.failing = False
    for place, expected in ((copy, written), (directory, written + 50)):
        async with opened(place) as store:
            assert len((await store.read(everything)).result) == expected
        assert not paths(place)


async def test_a_checkpoint_that_ends_anywhere_is_made_again_from_the_log(
    tmp_path: Path, dice: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off behind any slice, with what its transactions wrote until then in the tree."""
    monkeypatch.setattr(checkpoint, "SLICE_KEYS", 2)
    monkeypatch.setattr(checkpoint, "TRANSACTION_KEYS", 4)
    write, left = TreeWriter.write, 0

    def cut_off(self: TreeWriter, keys: list[bytes], values: dict[bytes, bytes | None]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise TreeError("cut off")
        write(self, keys, values)

    monkeypatch.setattr(TreeWriter, "write", cut_off)
    model, directory = Model(), tmp_path / "0"
    for attempt in range(12):
        left = attempt
        async with opened(directory, 1 << 20) as store:
            await check_whole(store, model, dice)
            for _ in range(10):
                steps = random_steps(dice)
                await store.commit(Operation(partial(run_steps, steps)))
                run_steps(steps, model)
            await check_whole(store, model, dice)
        if attempt % 3:
            directory = killed(directory, tmp_path / str(attempt + 1))
    left = 1_000
    async with opened(directory) as store:
        await check_whole(store, model, dice)
    assert not paths(directory)


async def test_long_reads_see_one_state_while_segments_turn(tmp_path: Path) -> None:
    def rewrite(number: int, tx: Transaction) -> None:
        for key in range(300):
            tx.set(b"%06d" % key, b"%06d" % number)
        tx.clear(b"%06d" % (number % 300))

    async def read_all(store: Store) -> None:
        for _ in range(15):
            found = await store.read(everything)
            values = {value for _, value in found.result}
            assert len(values) == 1
            assert len(found.result) == 299
            assert found.version == int(values.pop()) + 1

    async with opened(tmp_path) as store:
        await store.commit(Operation(partial(rewrite, 0)))

        async def write_on() -> None:
            for number in range(1, 60):
                await store.commit(Operation(partial(rewrite, number)))

        await asyncio.gather(write_on(), *(read_all(store) for _ in range(4)))


_FULL_TREE = """
import asyncio, os, resource, signal, sys
from functools import partial
from pathlib import Path
from services.store.engines.lmdb import LmdbEngine
from services.store.errors import StoreUnavailableError
from services.store.group_commit import GroupCommit
from services.store.port import Operation

def put(number, tx):
    tx.set(b"%06d" % number, b"v" * 3_000)

async def write(store, numbers):
    for number in numbers:
        await store.commit(Operation(partial(put, number)))

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = GroupCommit(LmdbEngine(Path(sys.argv[1]), segment_bytes=128 << 10))
    await write(store, range(100))
    # Both segments and some of the tree are there. No file grows beyond this from now on.
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
    written = 100
    try:
        while True:
            await write(store, [written])
            written += 1
            assert written < 1_000, "the disk never filled up"
    except StoreUnavailableError as error:
        print(error)
    read = await store.read(lambda tx: len(tx.range(b"", b"\\xff", limit=200)))
    assert read.result == min(written, 200)
    print(written, flush=True)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await write(store, range(written, written + 100))
    await store.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("end", ["kill", "go on"])
async def test_a_disk_without_room_for_the_tree_loses_nothing_that_the_log_has(
    tmp_path: Path, end: str
) -> None:
    ended = subprocess.run(  # noqa: ASYNC221 (the test waits for nothing else)
        [sys.executable, "-c", _FULL_TREE, str(tmp_path / "store"), end],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == (-9 if end == "kill" else 0), ended.stderr
    error, number = ended.stdout.splitlines()
    assert error.startswith(f"cannot write the store in {tmp_path}/store: ")
    assert "; make room there" in error
    written = int(number) + (100 if end == "go on" else 0)
    store = await open_store(f"lmdb://{tmp_path}/store")
    for each in range(written):
        assert (await store.read(partial(value_of, each))).result == b"v" * 3_000
    assert (await store.read(partial(value_of, written))).result in (None, b"v" * 3_000)
    await store.close()


def value_of(number: int, tx: ReadTransaction) -> bytes | None:
    return tx.get(b"%06d" % number)
