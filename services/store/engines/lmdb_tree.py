"""LMDB as a tree of keys on the disk: snapshots of it, and synced transactions that write to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import lmdb

from services.store.engines.lmdb_file import check, sync_directory
from services.store.engines.redo.memtable import LongRead

# The keys of the tree itself. No other key is as large.
_VERSION_KEY = b"\xffversion"
"""Where the version of the last commit in the tree stands: 8 bytes, big-endian."""
_STORE_KEY = b"\xffstore"
"""Where the id of the store stands, as long as it has a log."""

TreeError = lmdb.Error
"""What the tree's methods raise."""
TreeFullError = lmdb.MapFullError
"""The map is full, not the disk: open the tree with a larger one."""


class Tree:
    """LMDB in a directory. Only one thread at a time may write."""

    def __init__(self, directory: Path, map_bytes: int, readers: int) -> None:
        """Opens the files; makes sure that their names survive a power failure.

        Raises ``OSError``, the tree's errors, and ``StoreUnavailableError`` for a damaged file.
        """
        check(directory)
        self._environment = lmdb.open(str(directory), map_size=map_bytes, max_spare_txns=readers)
        # The map of an existing store may be larger than what was asked for.
        self.map_bytes: int = max(map_bytes, self._environment.info()["map_size"])
        sync_directory(directory)

    def snapshot(self, longest: int) -> TreeSnapshot:
        """The last state, for reading, in any thread; end it soon.

        A range of ``longest`` pairs (0: any number) raises ``LongRead``.
        """
        return TreeSnapshot(self._environment.begin(), longest)

    def version(self) -> int:
        """The version of the last commit in the tree."""
        with self._environment.begin() as transaction:
            return int.from_bytes(transaction.get(_VERSION_KEY) or b"", "big")

    def store_id(self) -> bytes:
        """The id that ``identify`` gave to the store; empty while there is none."""
        with self._environment.begin() as transaction:
            return transaction.get(_STORE_KEY) or b""

    def identify(self, store_id: bytes) -> None:
        """Says from now on that the store has a log, with records of this id; empty: has none."""
        with self._environment.begin(write=True) as transaction:
            if store_id:
                transaction.put(_STORE_KEY, store_id)
            else:
                transaction.delete(_STORE_KEY)

    @contextmanager
    def writing(self) -> Iterator[TreeWriter]:
        """One transaction: synced to the disk at the end, or undone when something raises."""
        with self._environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            yield TreeWriter(transaction, cursor)

    def close(self) -> None:
        """Lets go of the files."""
        self._environment.close()


class TreeWriter:
    """Writes in one transaction."""

    def __init__(self, transaction: lmdb.Transaction[bytes], cursor: lmdb.Cursor[bytes]) -> None:
        self._transaction = transaction
        self._cursor = cursor

    def write(self, keys: Sequence[bytes], values: Mapping[bytes, bytes | None]) -> None:
        """Puts the values of keys, which are in order; removes a key whose value is None."""
        pairs = [(key, value) for key in keys if (value := values[key]) is not None]
        self._cursor.putmulti(pairs)
        if len(pairs) < len(keys):
            for key in keys:
                if values[key] is None:
                    self._transaction.delete(key)

    def clear(self, begin: bytes, end: bytes, most: int) -> bool:
        """Removes at most so many pairs of a range; gives whether there may be more."""
        found = self._cursor.set_range(begin or b"\x00")
        while found and self._cursor.key() < end and most:
            found = self._cursor.delete()
            most -= 1
        return not most

    def set_version(self, version: int) -> None:
        """Says what the tree has from now on."""
        self._transaction.put(_VERSION_KEY, version.to_bytes(8, "big"))


class TreeSnapshot:
    """Reads in one state of the tree."""

    __slots__ = ("_longest", "_transaction", "get")

    def __init__(self, transaction: lmdb.Transaction[bytes], longest: int) -> None:
        self._transaction = transaction
        self._longest = longest
        self.get: Callable[[bytes], bytes | None] = transaction.get

    def version(self) -> int:
        """The version of the last commit in it."""
        return int.from_bytes(self.get(_VERSION_KEY) or b"", "big")

    def end(self) -> None:
        """Lets go of the transaction, whoever still has this object.

        LMDB has few places for readers, and one is free again when nothing refers to its
        transaction any more. The frames in the traceback of an error must not be what does.
        """
        self._transaction.abort()
        del self._transaction, self.get

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys."""
        return [self.get(key) for key in keys]

    def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """The pairs of a range."""
        pairs: list[tuple[bytes, bytes]] = []
        with self._transaction.cursor() as cursor:
            if reverse:
                found = cursor.prev() if cursor.set_range(end) else cursor.last()
            else:
                found = cursor.set_range(begin or b"\x00")
            if not found:
                return pairs
            for pair in cursor.iterprev() if reverse else cursor.iternext():
                if not begin <= pair[0] < end:
                    break
                pairs.append(pair)
                if len(pairs) == limit:
                    break
                if len(pairs) == self._longest:
                    raise LongRead
        return pairs
