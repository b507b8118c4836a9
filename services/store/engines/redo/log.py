"""The log: segments in a directory, one of which takes the next record.

The others hold what is not yet in the tree, or are free to be used again. Versions bind all of it
together: each record has the version behind that of the one before, in whichever segment that is.
"""

from __future__ import annotations

from pathlib import Path

from services.store.engines.lmdb_file import sync_directory
from services.store.engines.redo.segment import Segment

SEGMENT_BYTES = 4 << 20
"""How much is logged until the tree gets it; at most as much again is logged meanwhile."""
_STEM, _SUFFIX = "redo-", ".log"


def paths(directory: Path) -> list[Path]:
    """The files of a log, in the order of their making."""
    found = directory.glob(f"{_STEM}*{_SUFFIX}")
    return sorted((path for path in found if path.stem[len(_STEM) :].isdigit()), key=_number)


def remove_log(directory: Path) -> None:
    """Removes the files of a log whose commits are all in the tree. Raises ``OSError``."""
    for path in paths(directory):
        path.unlink()


class Log:
    """See the module. Its methods block and raise ``OSError``, unless they are quick."""

    def __init__(self, directory: Path, store_id: bytes, segment_bytes: int) -> None:
        """Files of an earlier log stay as they are until ``retire``."""
        self._directory = directory
        self._store_id = store_id
        self._segment_bytes = segment_bytes
        self._earlier = paths(directory)
        self._next = 1 + max(map(_number, self._earlier), default=0)
        self._active: Segment | None = None
        self._full: list[Segment] = []
        self._free: list[Segment] = []

    def fits(self, payload_bytes: int) -> bool:
        """Whether a record goes into the segment in use."""
        return self._active is None or self._active.fits(payload_bytes)

    def append(self, version: int, payload: bytes) -> None:
        """Writes a record: when this returns it is on the disk; when it raises it never will be.

        Only when what a failed write left cannot be made unreadable either, a record may be there
        all the same; then nothing more is written before that has been done.
        """
        self._in_use().append(self._store_id, version, payload)

    def begin(self) -> None:
        """Makes the file that the first record goes to, if that has not been done."""
        self._in_use()

    def restart(self) -> None:
        """Forgets the segment in use, too: all that it holds is in the tree. Quick."""
        if self._active is not None:
            self._active.restart()

    def turn(self) -> None:
        """Makes the next record the first of another segment."""
        if self._active is not None:
            self._active.mend()
            another = self._another()
            self._full.append(self._active)
            self._active = another

    def retire(self) -> None:
        """Frees what stands before the segment in use: all that it holds is in the tree.

        That segment stays: where the tree says that there is a log, a file of it must be.
        """
        self._in_use()
        while self._full:
            segment = self._full.pop()
            if self._free:
                segment.close()
                segment.path.unlink()
            else:
                segment.restart()
                self._free.append(segment)
        while self._earlier:
            self._earlier.pop(0).unlink(missing_ok=True)

    def close(self, *, empty: bool) -> None:
        """Lets go of the files. ``empty``: all that they hold is in the tree, so removes them."""
        active = [] if self._active is None else [self._active]
        segments = [*self._full, *self._free, *active]
        for segment in segments:
            segment.close()
        if empty:
            for path in (*self._earlier, *(segment.path for segment in segments)):
                path.unlink(missing_ok=True)
            sync_directory(self._directory)

    def _in_use(self) -> Segment:
        if self._active is None:
            self._active = self._another()
        return self._active

    def _another(self) -> Segment:
        if self._free:
            return self._free.pop()
        path = self._directory / f"{_STEM}{self._next}{_SUFFIX}"
        segment = Segment(path, self._segment_bytes)
        try:
            sync_directory(self._directory)
        except OSError:
            segment.close()
            raise
        self._next += 1
        return segment


def _number(path: Path) -> int:
    return int(path.stem[len(_STEM) :])
