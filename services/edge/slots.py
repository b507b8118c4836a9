"""Files of slots of one size, mapped: what is written there outlives a kill of the process."""

from __future__ import annotations

import mmap
import os
from pathlib import Path


def open_slots(path: Path, slot_bytes: int, slots: int) -> tuple[mmap.mmap, int]:
    """Maps a file; it, and how many slots it has.

    Its room on the disk is taken at once, so that no write fails later for want of it.

    Args:
        path: the file; made, of zeros, when it is not there. Only this user may read it.
        slot_bytes: the size of each.
        slots: at least so many; a file that has more keeps them.

    Raises OSError: a full disk, say.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        count = max(os.fstat(fd).st_size // slot_bytes, slots)
        os.posix_fallocate(fd, 0, count * slot_bytes)
        return mmap.mmap(fd, count * slot_bytes), count
    finally:
        os.close(fd)
