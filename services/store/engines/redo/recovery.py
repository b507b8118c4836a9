"""What a log holds that the tree beneath does not have: read when a store is opened.

The last record may be torn: nobody had an answer for it, so it never was. Damage anywhere else is
refused, because commits that were answered follow it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from services.store.engines.redo.log import paths
from services.store.engines.redo.records import BLOCK_BYTES, MAGIC, Changes, Record, read
from services.store.records import RecordInvalidError

_REMEDY = (
    "put the directory back from a backup or a snapshot, and run tollmesh audit after the start"
)


class LogDamagedError(Exception):
    """The log cannot be read to its end; the message says where and why, and what to do."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; {_REMEDY}")


def recover(directory: Path, store_id: bytes, version: int) -> Iterator[Changes]:
    """The changes of each commit after ``version``, which is the tree's, in their order.

    ``store_id`` is what the tree calls the log; empty: it has none, as after an orderly end.
    Raises ``LogDamagedError`` and ``OSError``.
    """
    files = paths(directory)
    if not store_id:
        for path in files:
            _check_done_with(path, version)
        return
    if not files:
        raise LogDamagedError("its log, which has the last commits, is missing (redo-*.log)")
    runs = [(path, _run(path, store_id, version)) for path in files]
    runs = [(path, run) for path, run in runs if run]
    for path, run in sorted(runs, key=lambda each: each[1][0].version):
        for record in run:
            if record.version <= version:
                continue
            version += 1
            if record.version > version:
                raise LogDamagedError(
                    f"the commits of versions {version} to {record.version - 1} are missing: they "
                    f"are neither in the tree nor in the log, which goes on in {path.name}"
                )
            try:
                yield record.changes()
            except RecordInvalidError as error:
                raise LogDamagedError(f"{path.name}: version {version}: {error}") from error


def _run(path: Path, store_id: bytes, version: int) -> list[Record]:
    """The records from the beginning of a file on, as long as each follows the one before."""
    data = path.read_bytes()
    found: list[Record] = []
    at = 0
    while (record := read(data, at)) is not None and record.store_id == store_id:
        if found and record.version != found[-1].version + 1:
            break
        found.append(record)
        at += record.blocks_bytes
    if record is not None and not found:
        raise LogDamagedError(f"{path.name} is the log of another store")
    last = found[-1].version if found else version
    # What an earlier use of the file left is older. Anything newer followed what is unreadable.
    while (at := _next_block(data, at)) >= 0:
        record = read(data, at)
        if record is not None and record.store_id == store_id and record.version > last:
            where = (found and f"behind the commit of version {last}") or "at its beginning"
            raise LogDamagedError(
                f"{path.name} is damaged {where}: the commit of version {record.version} follows"
            )
        at += BLOCK_BYTES
    return found


def _check_done_with(path: Path, version: int) -> None:
    """Raises ``LogDamagedError`` when a file that should be of no use has later commits."""
    data = path.read_bytes()
    at = 0
    while (at := _next_block(data, at)) >= 0:
        record = read(data, at)
        if record is not None and record.version > version:
            raise LogDamagedError(
                f"{path.name} has the commit of version {record.version}, which does not belong to "
                f"this tree: that ends with version {version}"
            )
        at += BLOCK_BYTES


def _next_block(data: bytes, at: int) -> int:
    """The next block that begins as a record does, or -1."""
    while (at := data.find(MAGIC, at)) >= 0 and at % BLOCK_BYTES:
        at += 1
    return at
