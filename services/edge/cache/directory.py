"""Where the disk tier's files are, and whose they are. Functions here may block."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from services.edge.cache.files import shelf_of


class CacheInUseError(Exception):
    """Another process uses this cache directory."""


class CacheDirectoryError(Exception):
    """The cache directory cannot be written."""


class CacheDirectory:
    """A directory that one process at a time works in.

    Args:
        path: the directory; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.objects = path / "objects"
        """Whole files, on shelves."""
        self.partials = path / "partial"
        """Files on their way in."""
        self._lock_fd = -1

    def take(self) -> None:
        """Makes the directory this process's own and throws half-written files away.

        Raises CacheInUseError, CacheDirectoryError.
        """
        try:
            self._lock_fd = self._opened_lock()
        except OSError as error:
            raise CacheDirectoryError(f"the cache directory cannot be written: {error}") from error
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CacheInUseError(f"another edge uses {self._path}") from error
        for file in self.partials.iterdir():
            file.unlink()

    def release(self) -> None:
        """Lets another process have it."""
        os.close(self._lock_fd)

    def path_of(self, name: str) -> Path:
        """The place of a whole file."""
        return shelf_of(self.objects, name) / name

    def _opened_lock(self) -> int:
        for directory in (self.objects, self.partials):
            directory.mkdir(parents=True, exist_ok=True)
        for directory in (self._path, self.objects, self.partials):
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))
        return os.open(self._path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
