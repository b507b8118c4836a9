"""The spool: the nodes of files on their way to the chain, on this machine's disk.

A *pack* holds the distinct nodes of one file, in the order in which they were made, and is named
after the file's root. A *draft* becomes a pack by one rename, after everything is on the disk: a
pack is whole or absent, whenever the machine stops. Nodes are checked by whoever reads them.

Format of a pack: PACK_MAGIC, and for each node its digest (32 bytes), its length (4 bytes, big
endian) and its bytes.

Everything here blocks on the disk: call it from a thread.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.chain.dag.cid import DIGEST_BYTES

PACK_MAGIC = b"TMPACK1\n"
_LENGTH_BYTES = 4
_HEAD_BYTES = DIGEST_BYTES + _LENGTH_BYTES
_PACK, _DRAFT = ".pack", ".draft"


class SpoolInUseError(Exception):
    """Another process has this spool."""


@dataclass(frozen=True, slots=True)
class Pack:
    """The nodes of one file."""

    path: Path
    places: dict[bytes, tuple[int, int]]
    """Offset and length in the file, by digest; in the order in which the nodes were made."""
    size_bytes: int

    def read(self, digest: bytes) -> bytes | None:
        """A node's bytes, unchecked; None when it is not here, or the pack is gone."""
        place = self.places.get(digest)
        if place is None:
            return None
        try:
            with self.path.open("rb") as file:
                file.seek(place[0])
                return file.read(place[1])
        except FileNotFoundError:
            return None


class Draft:
    """A pack while it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("xb")
        self._file.write(PACK_MAGIC)
        self._places: dict[bytes, tuple[int, int]] = {}

    def add(self, digest: bytes, node: bytes) -> None:
        """Writes a node, unless it is here already. Raises OSError."""
        if digest in self._places:
            return
        self._file.write(digest + len(node).to_bytes(_LENGTH_BYTES, "big"))
        self._places[digest] = (self._file.tell(), len(node))
        self._file.write(node)

    @property
    def size_bytes(self) -> int:
        """How much was written."""
        return self._file.tell()

    def keep(self, root: bytes) -> Pack:
        """Makes it the pack of a file: on the disk, whatever happens next. Raises OSError."""
        self._file.flush()
        os.fsync(self._file.fileno())
        size_bytes = self._file.tell()
        self._file.close()
        path = self._path.with_name(root.hex() + _PACK)
        self._path.rename(path)
        _sync_directory(path.parent)
        return Pack(path, self._places, size_bytes)

    @property
    def digests(self) -> list[bytes]:
        """The distinct nodes so far, in the order in which they were made."""
        return list(self._places)

    def discard(self) -> None:
        """Removes it; does nothing after ``keep``."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class Spool:
    """One network's packs. Only one process at a time has it."""

    def __init__(self, directory: Path) -> None:
        """Makes the directory when it is absent, and removes drafts that a crash left.

        Raises ``SpoolInUseError`` and OSError.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._lock = (directory / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise SpoolInUseError(f"another process uses the spool {directory}") from None
        for draft in directory.glob("*" + _DRAFT):
            draft.unlink()

    def draft(self) -> Draft:
        """Begins a pack. Raises OSError."""
        return Draft(self._directory / (secrets.token_hex(16) + _DRAFT))

    def roots(self) -> list[bytes]:
        """Whose packs there are."""
        return [bytes.fromhex(path.stem) for path in self._directory.glob("*" + _PACK)]

    def pack(self, root: bytes) -> Pack | None:
        """The pack of a file; None when there is none, or when it is damaged."""
        path = self._directory / (root.hex() + _PACK)
        try:
            with path.open("rb") as file:
                places = dict(_scan(file))
                return Pack(path, places, file.tell())
        except (FileNotFoundError, ValueError):
            return None

    def remove(self, root: bytes) -> None:
        """Removes the pack of a file, if there is one."""
        (self._directory / (root.hex() + _PACK)).unlink(missing_ok=True)

    def close(self) -> None:
        """Lets another process have it."""
        self._lock.close()


def _scan(file: BinaryIO) -> Iterator[tuple[bytes, tuple[int, int]]]:
    size = os.fstat(file.fileno()).st_size
    if file.read(len(PACK_MAGIC)) != PACK_MAGIC:
        raise ValueError("not a pack")
    while head := file.read(_HEAD_BYTES):
        length = int.from_bytes(head[DIGEST_BYTES:], "big")
        offset = file.tell()
        if len(head) < _HEAD_BYTES or offset + length > size:
            raise ValueError("the pack is cut")
        yield head[:DIGEST_BYTES], (offset, length)
        file.seek(offset + length)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
