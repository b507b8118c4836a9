"""Writes a table to the tree, in the background: a little at a time, so that commits go on beside.

Several transactions of the tree, in the order of the keys. Only the last one moves the tree's
version: until then the log says more than the tree, and its changes are applied once more when a
checkpoint is cut off. They are absolute, so that changes nothing.
"""

from __future__ import annotations

import time
from threading import Event

from services.store.engines.lmdb_tree import Tree
from services.store.engines.redo.memtable import MemTable, sorted_keys

TRANSACTION_KEYS = 8_000
"""Bounds the pages that a transaction of the tree keeps in memory."""
SLICE_KEYS = 500
"""Written at once, while the interpreter does nothing else: well below a millisecond."""
PAUSE_S = 0.001


def write_to(tree: Tree, table: MemTable, version: int, hurry: Event) -> None:
    """Makes a table that nobody writes to part of the tree. ``hurry``: somebody waits for it.

    Raises the tree's errors; it may be begun again then.
    """

    def pause() -> None:
        if not hurry.is_set():
            time.sleep(PAUSE_S)

    for begin, end in table.clears:
        more = True
        while more:
            with tree.writing() as writer:
                for _ in range(TRANSACTION_KEYS // SLICE_KEYS):
                    if not (more := writer.clear(begin, end, SLICE_KEYS)):
                        break
                    pause()
    keys = sorted_keys(table, pause)
    for first in range(0, len(keys) or 1, TRANSACTION_KEYS):
        chunk = keys[first : first + TRANSACTION_KEYS]
        with tree.writing() as writer:
            for at in range(0, len(chunk), SLICE_KEYS):
                writer.write(chunk[at : at + SLICE_KEYS], table.values)
                pause()
            if first + TRANSACTION_KEYS >= len(keys):
                writer.set_version(version)


def write_at_once(tree: Tree, table: MemTable, version: int) -> None:
    """Makes a small table part of the tree in one transaction: wholly, or not at all."""
    with tree.writing() as writer:
        for begin, end in table.clears:
            while writer.clear(begin, end, SLICE_KEYS):
                pass
        writer.write(sorted(table.values), table.values)
        writer.set_version(version)
