"""Paid transfers under way, in a file that outlives the process.

Fixed slots in memory pages shared with the file: noting how much was sent costs a few bytes of
memory, and what was noted is still there after a SIGKILL (after a power failure it may not be; a
hold's expiry covers that). The next process settles what it finds.

Format, little-endian, 512 bytes a slot: state (1 byte: 0 free, 1 open), cache result (1 byte), 6
bytes unused, quantity (u64), expiry (f64, Unix time in s), 8 bytes unused, then NUL-padded ASCII:
hold id (64), account id (64), request id (64), meter (32); then the resource (256, UTF-8).
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from services.rpc.errors import OverloadedError

_SLOT = struct.Struct("<BB6xQd8x64s64s64s32s256s")
_QUANTITY = struct.Struct("<Q")
_QUANTITY_AT = 8
_OPEN = b"\x01"
_FREE = b"\x00"


@dataclass(frozen=True, slots=True)
class Entry:
    """A hold, and how much was delivered under it."""

    hold_id: str
    account_id: str
    request_id: str
    """Of the reservation; those of the settlement are made from it."""
    meter: str
    cache_result: int
    resource: str
    expires_at: float
    """Unix time, in s."""
    quantity: int = 0


class Journal:
    """The file. Used from one thread; nothing here waits for the disk.

    Args:
        path: the file; made when it is not there.
        slots: how many transfers it has room for.
    """

    def __init__(self, path: Path, slots: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = max(os.fstat(fd).st_size // _SLOT.size, slots) * _SLOT.size
            os.posix_fallocate(fd, 0, size)
            self._pages = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        count = size // _SLOT.size
        self._free = [slot for slot in reversed(range(count)) if not self._is_open(slot)]
        self._left = [slot for slot in range(count) if self._is_open(slot)]

    def left(self) -> list[tuple[int, Entry]]:
        """What the process before this one left open, with its slots."""
        left, self._left = self._left, []
        return [(slot, self._read(slot)) for slot in left]

    def write(self, entry: Entry) -> int:
        """Opens a slot. Raises OverloadedError when there is none."""
        if not self._free:
            raise OverloadedError
        slot = self._free.pop()
        record = _SLOT.pack(
            0,
            entry.cache_result,
            entry.quantity,
            entry.expires_at,
            entry.hold_id.encode(),
            entry.account_id.encode(),
            entry.request_id.encode(),
            entry.meter.encode(),
            entry.resource.encode()[:256],
        )
        start = slot * _SLOT.size
        self._pages[start : start + _SLOT.size] = record
        self._pages[start : start + 1] = _OPEN  # last: a slot is whole, or not there
        return slot

    def note(self, slot: int, quantity: int) -> None:
        """Notes how much was delivered so far."""
        _QUANTITY.pack_into(self._pages, slot * _SLOT.size + _QUANTITY_AT, quantity)

    def clear(self, slot: int) -> None:
        """Frees a slot: its hold is settled."""
        start = slot * _SLOT.size
        self._pages[start : start + 1] = _FREE
        self._free.append(slot)

    def close(self) -> None:
        """Lets go of the file; open slots stay for the next process."""
        self._pages.close()

    def _is_open(self, slot: int) -> bool:
        start = slot * _SLOT.size
        return self._pages[start : start + 1] == _OPEN

    def _read(self, slot: int) -> Entry:
        _, cache_result, quantity, expires_at, *texts = _SLOT.unpack_from(
            self._pages, slot * _SLOT.size
        )
        hold_id, account_id, request_id, meter, resource = (
            text.rstrip(b"\0").decode(errors="ignore") for text in texts
        )
        return Entry(
            hold_id, account_id, request_id, meter, cache_result, resource, expires_at, quantity
        )
