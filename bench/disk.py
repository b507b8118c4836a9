"""How long the disk takes to keep what it is given: the least that a durable answer waits for."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from services.store.open import open_store
from services.store.port import Operation, Transaction

TIMES = 50
PAGE_BYTES = 4096


@dataclass(frozen=True)
class Disk:
    """Medians, in seconds."""

    sync_s: float
    """One fdatasync after one page was overwritten."""
    commit_s: float
    """One commit of the store with one small write."""

    def __str__(self) -> str:
        return (
            f"The disk: one page synced {1000 * self.sync_s:.2f} ms, "
            f"one commit of the store {1000 * self.commit_s:.2f} ms."
        )


async def measure(directory: Path) -> Disk:
    """Writes a little in ``directory`` and removes it."""
    place = directory / "disk"
    place.mkdir()
    sync_s = await _median_s(_sync(place / "page"))
    store = await open_store(f"lmdb://{place}/store")
    try:
        commit_s = await _median_s(lambda: store.commit(Operation(_write)))
    finally:
        await store.close()
    return Disk(sync_s, commit_s)


def _sync(path: Path) -> Callable[[], Awaitable[None]]:
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    os.write(file, bytes(PAGE_BYTES))
    os.fsync(file)

    async def overwrite() -> None:
        os.pwrite(file, os.urandom(PAGE_BYTES), 0)
        os.fdatasync(file)

    return overwrite


def _write(tx: Transaction) -> None:
    tx.set(b"key", os.urandom(100))


async def _median_s(once: Callable[[], Awaitable[object]]) -> float:
    taken = []
    for _ in range(TIMES):
        begin = time.perf_counter()
        await once()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)
