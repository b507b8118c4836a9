"""Large commits of the embedded engine: they go to the tree itself, past the log."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path

import pytest

from services.store.engines import lmdb
from services.store.engines.lmdb_tree import Tree, TreeError
from services.store.engines.redo import checkpoint
from services.store.engines.redo.log import paths
from services.store.engines.redo.memtable import MemTable
from services.store.errors import StoreUnavailableError
from services.store.port import Operation, Store, Transaction
from tests.support.embedded_store import everything, killed, opened, put, ranged

pytestmark = pytest.mark.usefixtures("whole_checkpoints")


class Course:
    """Small commits lie over the tree, large ones go into it; each writes its number."""

    def __init__(self, dice: random.Random) -> None:
        self.large = [False, True] + [dice.random() < 0.5 for _ in range(150)]

    def write(self, number: int, tx: Transaction) -> None:
        for key in range(300 if self.large[number] else 3):
            tx.set(b"%06d" % key, b"%06d" % number)

    def check(self, version: int, key: bytes, value: bytes) -> None:
        number = version - 1
        while int(key) >= 3 and not self.large[number]:
            number -= 1
        assert value == b"%06d" % number, version


async def test_reads_beside_commits_to_the_tree_itself_see_one_state(
    tmp_path: Path, dice: random.Random
) -> None:
    course = Course(dice)

    async def read_on(store: Store, writing: asyncio.Task[None]) -> None:
        while not writing.done():
            look = partial(
                ranged, begin=b"", end=b"z", limit=dice.choice((2, 5, 400)), reverse=False
            )
            found = await store.read(look)
            for key, value in found.result:
                course.check(found.version, key, value)
            await asyncio.sleep(0)

    async def write_on(store: Store) -> None:
        for number in range(len(course.large)):
            answer = await store.commit(Operation(partial(course.write, number)))
            assert answer.version == number + 1

    async with opened(tmp_path) as store:
        writing = asyncio.create_task(write_on(store))
        await asyncio.gather(writing, *(read_on(store, writing) for _ in range(4)))


async def test_the_log_goes_on_behind_commits_to_the_tree_itself(tmp_path: Path) -> None:
    def large(tx: Transaction) -> None:
        for number in range(100, 500):
            put(number, 1, tx)

    async with opened(tmp_path / "store") as store:
        for number in range(3):
            await store.commit(Operation(partial(put, number, 1)))
        for number in range(3, 6):
            await store.commit(Operation(large))
            await store.commit(Operation(partial(put, number, 1)))
            copy = killed(tmp_path / "store", tmp_path / f"copy-{number}")
            async with opened(copy) as again:
                assert len((await again.read(everything)).result) == 401 + number
    assert not paths(tmp_path / "store")


@pytest.mark.parametrize("there", [True, False], ids=["it is there", "it is not there"])
@pytest.mark.parametrize("then", ["commit", "close", "kill"])
async def test_a_commit_to_the_tree_whose_result_is_unknown_is_there_wholly_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, then: str
) -> None:
    directory = tmp_path / "store"

    def rewrite(number: int, tx: Transaction) -> None:
        for key in range(300):
            tx.set(b"%06d" % key, b"%06d" % number)

    def fail(tree: Tree, table: MemTable, version: int) -> None:
        if there:
            checkpoint.write_at_once(tree, table, version)
        raise TreeError("Input/output error")

    async with opened(directory) as store:
        await store.commit(Operation(partial(put, 1, 9)))
        with monkeypatch.context() as patch:
            patch.setattr(lmdb, "write_at_once", fail)
            with pytest.raises(StoreUnavailableError, match="cannot write"):
                await store.commit(Operation(partial(rewrite, 7)))
        found = (await store.read(everything)).result
        assert len(found) == (300 if there else 1)
        if then == "commit":
            await store.commit(Operation(partial(put, 1, 10)))
            assert (await store.read(everything)).result[there] == (b"000001", b"v" * 10)
            found = (await store.read(everything)).result
        if then == "kill":
            directory = killed(directory, tmp_path / "copy")
    async with opened(directory) as store:
        assert (await store.read(everything)).result == found
