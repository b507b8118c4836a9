"""Which tickets are still to be reported, in a file that outlives the process.

A ticket is entered before it is given away and struck out when its report has settled it. What a
killed process left is neither: its reports may still come, and each counts once. An entry costs a
microsecond, in memory pages shared with the file, and survives a SIGKILL.

Format, little-endian, 40 bytes a slot: state (1 byte: 0 free, 1 taken), 3 bytes unused, the process
(12 bytes, ASCII), the number of the ticket there (u64), bytes reported so far (u64), and until when
a report can come (f64, Unix time in s).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from services.edge.slots import open_slots
from services.rpc.errors import OverloadedError

_SLOT = struct.Struct("<B3x12sQQd")
_REPORTED = struct.Struct("<Q")
_REPORTED_AT = 24
_TAKEN, _FREE = 1, 0


class Overdue(NamedTuple):
    """A ticket whose report did not come in time."""

    slot: int
    reported: int
    """How many bytes were reported, and settled, before."""


class Register:
    """The file. Used from one thread; nothing here waits for the disk.

    Args:
        path: the file; made when it is not there.
        slots: how many tickets it has room for.
        keep_s: how long after its end a ticket can be reported.
    """

    def __init__(self, path: Path, slots: int, *, keep_s: float) -> None:
        self._pages, count = open_slots(path, _SLOT.size, slots)
        self._keep_s = keep_s
        self._overdue = {name: overdue for _, name, overdue in sorted(self._left())}
        taken = {overdue.slot for overdue in self._overdue.values()}
        self._free = [slot for slot in reversed(range(count)) if slot not in taken]

    def enter(self, process: bytes, number: int, ends_in_s: float) -> int:
        """Enters a ticket; its slot. Raises OverloadedError when there is no room."""
        if not self._free:
            self._forget_one()
        slot = self._free.pop()
        until = time.time() + ends_in_s + self._keep_s
        start = slot * _SLOT.size
        _SLOT.pack_into(self._pages, start, 0, process, number, 0, until)
        self._pages[start] = _TAKEN  # last: a slot is whole, or not there
        return slot

    def note(self, slot: int, reported: int) -> None:
        """Notes how much was reported so far."""
        _REPORTED.pack_into(self._pages, slot * _SLOT.size + _REPORTED_AT, reported)

    def strike_out(self, slot: int) -> None:
        """The ticket is settled; whatever is said of it from now on is a repetition."""
        self._pages[slot * _SLOT.size] = _FREE
        self._free.append(slot)

    def expire(self, slot: int) -> None:
        """The ticket was settled without its report, which may still come."""
        _, process, number, reported, _ = _SLOT.unpack_from(self._pages, slot * _SLOT.size)
        self._overdue[process.decode(), number] = Overdue(slot, reported)

    def is_overdue(self, process: str, number: int) -> bool:
        """Whether a ticket's report did not come in time, and has not come since."""
        return (process, number) in self._overdue

    def take(self, process: str, number: int) -> Overdue | None:
        """A ticket whose overdue report has come: once. The caller strikes it out."""
        return self._overdue.pop((process, number), None)

    def close(self) -> None:
        """Lets go of the file."""
        self._pages.close()

    def _forget_one(self) -> None:
        """Makes room: a ticket that is overdue for the longest time will hardly be reported."""
        if not self._overdue:
            raise OverloadedError
        name = next(iter(self._overdue))
        self.strike_out(self._overdue.pop(name).slot)

    def _left(self) -> Iterator[tuple[float, tuple[str, int], Overdue]]:
        """What earlier processes left, of which there may be a report."""
        now = time.time()
        for slot in range(len(self._pages) // _SLOT.size):
            state, process, number, reported, until = _SLOT.unpack_from(
                self._pages, slot * _SLOT.size
            )
            if state and until > now:
                yield until, (process.decode("ascii", "replace"), number), Overdue(slot, reported)
