"""The names of a new store's files and directories survive a power failure: they are synced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.store.open import open_store
from services.store.port import Operation


@pytest.mark.parametrize("path", ["store", "a/new/store"])
async def test_each_directory_that_got_a_name_is_synced_before_the_first_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    synced: list[Path] = []
    sync = os.fsync

    def noted(file: int) -> None:
        synced.append(Path(f"/proc/self/fd/{file}").readlink())
        sync(file)

    monkeypatch.setattr(os, "fsync", noted)
    store = await open_store(f"lmdb://{tmp_path / path}")
    await store.commit(Operation(lambda tx: tx.set(b"k", b"v")))
    await store.close()
    directory = tmp_path / path
    made = [directory, *(each for each in directory.parents if tmp_path in each.parents)]
    assert {each.parent for each in made} | {directory} <= set(synced)
    assert (directory / "data.mdb").exists()
