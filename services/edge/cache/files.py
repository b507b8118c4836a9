"""The disk tier's files. Every function here may block: call it on a thread.

A file is written under ``partial/``, made durable, and only then renamed into ``objects/``; from
then on it is only read or unlinked, never truncated, so a mapping of it stays valid for as long as
a reader holds it, whatever the cache does.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from pathlib import Path
from secrets import token_hex
from typing import Self

AHEAD_BYTES = 2 * 1024 * 1024
"""How much is read ahead at once of a file that is not in the page cache."""

PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors of opening a file that say nothing of the file."""

_PROBE_BYTES = 64 * 1024
_READ_BYTES = 1024 * 1024


class Mapping(mmap.mmap):
    """A whole file as memory pages; slices of it cost no copy. Closed with its last reference."""

    fd: int

    def __new__(cls, fd: int, size_bytes: int) -> Self:
        """Maps ``size_bytes`` of an open file and takes over ``fd``. Raises OSError, ValueError."""
        mapping = super().__new__(cls, fd, size_bytes, prot=mmap.PROT_READ)
        mapping.fd = fd
        return mapping

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class PartialFile:
    """A file on its way in. Readers map it while it grows: what was appended can be read."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        """Makes a file with room for ``size_bytes``. Raises OSError (no space left, say)."""
        self.name = token_hex(12)
        self._path = directory / self.name
        self._digest = hashlib.sha256()
        self._written = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(self._path, flags, 0o600)
        try:
            # The room is taken now: a full disk shows here, not as a bus error in a reader.
            os.posix_fallocate(fd, 0, size_bytes)
            self.mapping = Mapping(fd, size_bytes)
        except BaseException:
            os.close(fd)
            self._path.unlink()
            raise

    def append(self, data: bytes) -> None:
        """Writes the next bytes. Raises OSError."""
        self._digest.update(data)
        view = memoryview(data)
        while view:
            written = os.pwrite(self.mapping.fd, view, self._written)
            self._written += written
            view = view[written:]

    def seal(self, directory: Path) -> bytes:
        """Makes the file durable, then moves it to ``directory``; its SHA-256. Raises OSError."""
        os.fsync(self.mapping.fd)
        shelf = shelf_of(directory, self.name)
        if not shelf.exists():
            shelf.mkdir(exist_ok=True)
            _sync_directory(directory)
        self._path = self._path.rename(shelf / self.name)
        _sync_directory(shelf)
        return self._digest.digest()

    def discard(self) -> None:
        """Removes the file, if it is still here; readers keep what they have mapped."""
        self._path.unlink(missing_ok=True)


def shelf_of(directory: Path, name: str) -> Path:
    """The sub-directory for a file: 256 of them, so that none grows very large."""
    return directory / name[:2]


def place_of(name: str) -> str:
    """Where a file stands, as a path from the directory of all shelves."""
    return f"{name[:2]}/{name}"


def open_mapping(path: Path, size_bytes: int, sha256: bytes | None) -> Mapping | None:
    """Maps a file; None when it is not what was stored.

    Args:
        path: the file.
        size_bytes: the size that it must have.
        sha256: the digest that its contents must have; None when that is known already.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if os.fstat(fd).st_size != size_bytes or (sha256 and _digest(fd) != sha256):
            os.close(fd)
            return None
        return Mapping(fd, size_bytes)
    except OSError:
        os.close(fd)
        raise


def resident(mapping: Mapping, offset: int, length: int) -> bool:
    """Whether a part is in the page cache, as far as a few probes tell. Does not block.

    A page that is not there would halt the whole event loop while the disk is read.
    """
    return _resident(mapping.fd, offset, length)


def read_ahead(mapping: Mapping, offset: int) -> None:
    """Brings the next AHEAD_BYTES into the page cache; blocks until they are there.

    Raises OSError when the disk cannot read them, or somebody cut the file short: touching the
    mapping there would end the process.
    """
    end = min(offset + AHEAD_BYTES, len(mapping))
    scratch = bytearray(_READ_BYTES)
    while offset < end:
        count = os.preadv(mapping.fd, [scratch], offset)
        if not count:
            raise OSError(errno.EIO, "the file is shorter than it was")
        offset += count


class Reread:
    """A file read once more, a piece at a time, to see whether it is still what was stored.

    Reads past mappings of it, and leaves the page cache as it was: what only this read needed does
    not push out what readers need.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Opens a file. Raises OSError."""
        self._size_bytes = size_bytes
        self._digest = hashlib.sha256()
        self._position = 0
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def step(self) -> int:
        """Reads the next piece; how many bytes, 0 at the end. Raises OSError."""
        known = _resident(self._fd, self._position, 1)
        data = os.pread(self._fd, _READ_BYTES, self._position)
        self._digest.update(data)
        if not known:
            os.posix_fadvise(self._fd, self._position, len(data), os.POSIX_FADV_DONTNEED)
        self._position += len(data)
        return len(data)

    def matches(self, sha256: bytes) -> bool:
        """Whether what was read is what was stored."""
        return self._position == self._size_bytes and self._digest.digest() == sha256

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)


def sweep(directory: Path, known: set[str]) -> dict[str, int]:
    """Removes every file that is not in ``known``; the sizes of those that are there."""
    sizes: dict[str, int] = {}
    for shelf in directory.iterdir():
        for file in shelf.iterdir():
            if file.name in known:
                sizes[file.name] = file.stat().st_size
            else:
                file.unlink()
    return sizes


def _resident(fd: int, offset: int, length: int) -> bool:
    probe = bytearray(1)
    last = offset + length - 1
    try:
        for position in (*range(offset, last, _PROBE_BYTES), last):
            if not os.preadv(fd, [probe], position, os.RWF_NOWAIT):
                return False
    except OSError:  # not there (EAGAIN), or the file system cannot tell
        return False
    return True


def _digest(fd: int) -> bytes:
    digest, position = hashlib.sha256(), 0
    while data := os.pread(fd, _READ_BYTES, position):
        digest.update(data)
        position += len(data)
    return digest.digest()


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
