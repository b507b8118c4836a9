"""The files of the embedded engine's log: there while there is a log, and of no use otherwise."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

from services.store.engines.lmdb import LmdbEngine
from services.store.engines.redo.log import paths
from services.store.errors import StoreUnavailableError
from services.store.port import Operation
from tests.support.embedded_store import everything, killed, opened, put


async def test_a_log_that_is_missing_is_refused(tmp_path: Path) -> None:
    """A copy of the data file alone must not pass for all that there was."""
    async with opened(tmp_path / "store") as store:
        for number in range(5):
            await store.commit(Operation(partial(put, number, 10)))
        copy = killed(tmp_path / "store", tmp_path / "copy")
    for path in paths(copy):
        path.unlink()
    with pytest.raises(StoreUnavailableError, match=r"redo-\*\.log.*put the directory back"):
        LmdbEngine(copy)


async def test_a_closed_store_has_no_log_and_says_so(tmp_path: Path) -> None:
    for number in range(3):
        async with opened(tmp_path) as store:
            await store.commit(Operation(partial(put, number, 10)))
            assert paths(tmp_path)
        assert not paths(tmp_path)
    async with opened(tmp_path) as store:
        assert len((await store.read(everything)).result) == 3


async def test_a_log_that_an_orderly_end_left_behind_is_removed(tmp_path: Path) -> None:
    async with opened(tmp_path / "store") as store:
        await store.commit(Operation(partial(put, 0, 10)))
        copy = killed(tmp_path / "store", tmp_path / "copy")
    left = [path.name for path in paths(copy)]
    for name in left:
        shutil.copy(copy / name, tmp_path / "store" / name)
    async with opened(tmp_path / "store") as store:
        assert len((await store.read(everything)).result) == 1
        assert left
        assert not paths(tmp_path / "store")


async def test_a_log_with_later_commits_than_a_tree_that_has_none_is_refused(
    tmp_path: Path,
) -> None:
    """A data file that was put back from a backup, beside a log that was not."""
    async with opened(tmp_path / "store") as store:
        await store.commit(Operation(partial(put, 0, 10)))
    backup = killed(tmp_path / "store", tmp_path / "backup")
    async with opened(tmp_path / "store") as store:
        await store.commit(Operation(partial(put, 1, 10)))
        copy = killed(tmp_path / "store", tmp_path / "copy")
    shutil.copy(backup / "data.mdb", copy / "data.mdb")
    with pytest.raises(StoreUnavailableError, match="does not belong to this tree"):
        LmdbEngine(copy)
