"""How long the disk takes to keep what it is given: what a durable answer costs at the least.

Measured where the server's store is, right before it is used: disks of virtual machines change
their minds from one minute to the next.
"""

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
    """One commit of the store with one small write: LMDB syncs its pages and then its root."""

    def bounds(self, in_flight: int) -> tuple[float, float]:
        """Calls a second that commits allow: when each call waits for two of them, and for one.

        A call that comes while a commit is under way waits for its end and then for its own. Where
        calls outnumber one, half of them are served while the other half is being committed; or
        all are committed at once, and nothing is served meanwhile.
        """
        most = in_flight / self.commit_s
        return (most if in_flight == 1 else most / 2), most


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
