"""A client that writes until it is killed; ``python -m tests.support.store_writer URL SEED``
(or a directory, for an LMDB store with a small log).

Every operation has a name and leaves PARTS keys, an entry of the log and a step of the counter; its
name is printed when it is acknowledged. So whoever opens the store later can tell what must be
there (what was printed), and that nothing is there in part.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from services.store.engines.lmdb import LmdbEngine
from services.store.group_commit import GroupCommit
from services.store.keys import Subspace
from services.store.open import open_store
from services.store.port import Operation, ReadTransaction, Store, Transaction

PARTS = 3
OPERATIONS = 2_000
WRITERS = 8
_PART = Subspace("writer", "part")
_LOG = Subspace("writer", "log")
_COUNT = Subspace("writer", "count").key()
_EVERYTHING = Subspace("writer").range()


async def write(store: Store, seed: int, acknowledge: Callable[[str], None]) -> None:
    """Commits OPERATIONS operations from several writers, in groups of all sorts."""
    dice = random.Random(seed)
    names = iter([f"{seed}-{number}" for number in range(OPERATIONS)])

    async def writer() -> None:
        for name in names:
            group = dice.choice(("", "one", "two"))
            await store.commit(Operation(partial(_leave, name), group))
            acknowledge(name)

    await asyncio.gather(*(writer() for _ in range(WRITERS)))


def _leave(name: str, tx: Transaction) -> None:
    for part in range(PARTS):
        tx.set(_PART.key(name, part), b"x" * (20 * part))
    tx.append(_LOG.prefix, name.encode())
    counted = int.from_bytes(tx.get(_COUNT) or b"", "big") + 1
    tx.set(_COUNT, counted.to_bytes(8, "big"))


@dataclass(frozen=True, slots=True)
class Found:
    """What writers left behind."""

    parts: dict[str, int]
    """How many parts there are of each operation."""
    log: list[str]
    count: int


async def found_in(store: Store) -> Found:
    """What writers left in a store, in one consistent look."""

    def look(tx: ReadTransaction) -> Found:
        parts: dict[str, int] = {}
        for key, _ in tx.range(*_PART.range()):
            name = str(_PART.parts(key)[0])
            parts[name] = parts.get(name, 0) + 1
        log = [value.decode() for _, value in tx.range(_LOG.prefix, _LOG.prefix + b"\xff")]
        return Found(parts, log, int.from_bytes(tx.get(_COUNT) or b"", "big"))

    return (await store.read(look)).result


async def erase(store: Store) -> None:
    """Removes what writers left."""
    await store.commit(Operation(lambda tx: tx.clear_range(*_EVERYTHING)))


class WriterProcess:
    """A writer in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: list[str] = []

    async def first_line(self) -> None:
        """Waits until it has acknowledged something."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line.endswith(b"\n"), "the writer ended before its first acknowledgement"
        self._lines.append(line.decode().strip())

    async def kill(self) -> list[str]:
        """Kills it at once (it may have finished) and gives everything that it acknowledged."""
        assert self._process.stdout is not None
        if self._process.returncode is None:
            self._process.kill()
        rest = await self._process.stdout.read()
        await self._process.wait()
        whole = rest[: rest.rfind(b"\n") + 1]  # a name that is cut off is no acknowledgement
        return self._lines + whole.decode().split()


async def start(place: str, seed: int) -> WriterProcess:
    """Starts a writer on the store of a URL, or on a directory with ``small_log``."""
    return WriterProcess(
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.store_writer",
            place,
            str(seed),
            stdout=asyncio.subprocess.PIPE,
        )
    )


def small_log(directory: Path) -> LmdbEngine:
    """An engine that writes to its tree all the time, in both ways."""
    return LmdbEngine(directory, segment_bytes=16 << 10, large_keys=24)


async def _main(place: str, seed: int) -> None:
    store = await open_store(place) if ":" in place else GroupCommit(small_log(Path(place)))

    def acknowledge(name: str) -> None:
        os.write(1, f"{name}\n".encode())

    await write(store, seed, acknowledge)
    await store.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
