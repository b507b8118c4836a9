"""A directory of a disk that one process has to itself, and what to say when it fails."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from services.store.engines.lmdb_file import OWNER_FILE, make_directory
from services.store.errors import StoreInUseError, StoreUnavailableError

_REMEDIES = {
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): "make room there: writing goes on by itself then",
    (errno.EACCES, errno.EPERM, errno.EROFS): "make it writable for the user of this service",
    (errno.EIO,): "make room there (LMDB says this of a full disk, too) or check the disk",
}
"""By the codes of the system."""


def own(directory: Path) -> int:
    """Makes a directory and takes the lock that keeps others out; gives the lock's file.

    The lock ends with the process, however that ends. Raises ``StoreInUseError`` while another has
    it, ``StoreUnavailableError`` when the directory cannot be used.
    """
    try:
        make_directory(directory)
        owner = os.open(directory / OWNER_FILE, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise unavailable(directory, "open", error) from error
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(owner)
        if not isinstance(error, BlockingIOError):
            raise unavailable(directory, "open", error) from error
        raise StoreInUseError(
            f"the store in {directory} is open in another process; an LMDB store serves only one"
        ) from error
    return owner


def unavailable(directory: Path, what: str, error: Exception) -> StoreUnavailableError:
    """What a store raises that cannot open, read or write its directory; says what to do."""
    return StoreUnavailableError(f"cannot {what} the store in {directory}: {error}{_remedy(error)}")


def _remedy(error: Exception) -> str:
    """What to do about an error of the system; LMDB keeps only its text."""
    for codes, remedy in _REMEDIES.items():
        if any(os.strerror(code) in str(error) for code in codes):
            return f"; {remedy}"
    return ""
