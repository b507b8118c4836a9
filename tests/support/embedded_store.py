"""An embedded store with a small log, and its files as a kill leaves them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from services.store.engines.lmdb import LARGE_KEYS, LmdbEngine
from services.store.engines.lmdb_tree import Tree
from services.store.engines.redo import checkpoint
from services.store.engines.redo.memtable import MemTable
from services.store.group_commit import GroupCommit, Limits
from services.store.port import ReadTransaction, Store, Transaction

SEGMENT = 40 << 10
"""Ten small commits: there is a checkpoint all the time."""
_CHECKPOINT = threading.Lock()


@asynccontextmanager
async def opened(
    directory: Path,
    segment_bytes: int = SEGMENT,
    limits: Limits | None = None,
    large_keys: int = LARGE_KEYS,
) -> AsyncIterator[Store]:
    engine = LmdbEngine(directory, segment_bytes=segment_bytes, large_keys=large_keys)
    store = GroupCommit(engine, limits)
    try:
        yield store
    finally:
        await store.close()


def put(number: int, size_bytes: int, tx: Transaction) -> None:
    tx.set(b"%06d" % number, b"v" * size_bytes)


def everything(tx: ReadTransaction) -> list[tuple[bytes, bytes]]:
    return tx.range(b"", b"\xff")


def write_to(tree: Tree, table: MemTable, version: int, hurry: threading.Event) -> None:
    """A checkpoint that is not going on while files are copied: no crash leaves such a copy."""
    with _CHECKPOINT:
        checkpoint.write_to(tree, table, version, hurry)


def killed(directory: Path, copy: Path) -> Path:
    """The files as they are now, as SIGKILL leaves them."""
    copy.mkdir()
    with _CHECKPOINT:
        for path in directory.iterdir():
            with suppress(FileNotFoundError):  # of the log, when the tree has all of it
                shutil.copy(path, copy)
    return copy


def ranged(
    tx: ReadTransaction, *, begin: bytes, end: bytes, limit: int, reverse: bool
) -> list[tuple[bytes, bytes]]:
    return tx.range(begin, end, limit=limit, reverse=reverse)
