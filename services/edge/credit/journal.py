"""Paid transfers under way, in a file that outlives the process.

Fixed slots in memory pages shared with the file: noting how much was sent costs a few bytes of
memory, and what was noted is still there after a SIGKILL (after a power failure it may not be; a
hold's expiry covers that). A slot is taken before its hold is asked for, so no hold goes unnoticed.
The next process settles what it finds.

Format, little-endian, 512 bytes a slot: state (1 byte: 0 free, 1 taken), cache result (1 byte), the
hold's expiry policy (1 byte; 0: release), whether a guest delivers and will say more of it (1
byte), its life in s (u32), delivered (u64), expiry (f64, Unix time in s), estimate (u64), then
NUL-padded: account id (64), request id (64), hold id (64, empty until it is known), meter (32), all
ASCII; then the resource (256, UTF-8).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from tollmesh.credits.v1 import credits_pb2

from services.edge.slots import open_slots
from services.rpc.errors import OverloadedError

_SLOT = struct.Struct("<BBBBIQdQ64s64s64s32s256s")
# In the machine's own order an aligned word is written at once: a kill never finds half of it.
_WORD = struct.Struct("Q")
_GUEST_AT, _DELIVERED_AT, _ESTIMATE_AT = 3, 8, 24
_HOLD_ID_AT, _ID_BYTES = 160, 64
_RELEASE = int(credits_pb2.EXPIRY_POLICY_RELEASE)
_TAKEN = b"\x01"
_FREE = b"\x00"


@dataclass(slots=True)
class Entry:
    """A hold, and how much was delivered under it."""

    account_id: str
    request_id: str
    """Of the reservation; those of the settlement are made from it."""
    meter: str
    cache_result: int
    resource: str
    estimate: int
    hold_s: int
    expires_at: float
    """Unix time, in s."""
    hold_id: str = ""
    """Empty while the credit service has not answered."""
    delivered: int = 0
    policy: int = _RELEASE
    """An ExpiryPolicy: what becomes of the hold when nobody settles it."""
    guest: bool = False
    """Whether somebody else delivers, and the last report is still to come."""


class Journal:
    """The file. Used from one thread; nothing here waits for the disk.

    Args:
        path: the file; made when it is not there.
        slots: how many transfers it has room for.
    """

    def __init__(self, path: Path, slots: int) -> None:
        self._pages, count = open_slots(path, _SLOT.size, slots)
        self._free = [slot for slot in reversed(range(count)) if not self._is_taken(slot)]
        self._left = [slot for slot in range(count) if self._is_taken(slot)]

    def left(self) -> list[tuple[int, Entry]]:
        """What the process before this one left unsettled, with its slots."""
        left, self._left = self._left, []
        return [(slot, self._read(slot)) for slot in left]

    def write(self, entry: Entry) -> int:
        """Takes a slot. Raises OverloadedError when there is none."""
        if not self._free:
            raise OverloadedError
        slot = self._free.pop()
        record = _SLOT.pack(
            0,
            entry.cache_result,
            entry.policy,
            entry.guest,
            entry.hold_s,
            entry.delivered,
            entry.expires_at,
            entry.estimate,
            entry.account_id.encode(),
            entry.request_id.encode(),
            entry.hold_id.encode(),
            entry.meter.encode(),
            entry.resource.encode()[:256],
        )
        start = slot * _SLOT.size
        self._pages[start : start + _SLOT.size] = record
        self._pages[start : start + 1] = _TAKEN  # last: a slot is whole, or not there
        return slot

    def name_hold(self, slot: int, hold_id: str) -> None:
        """Notes which hold was made."""
        start = slot * _SLOT.size + _HOLD_ID_AT
        self._pages[start : start + _ID_BYTES] = hold_id.encode().ljust(_ID_BYTES, b"\0")

    def note(self, slot: int, delivered: int) -> None:
        """Notes how much was delivered so far."""
        _WORD.pack_into(self._pages, slot * _SLOT.size + _DELIVERED_AT, delivered)

    def note_estimate(self, slot: int, estimate: int) -> None:
        """Notes that the hold was extended, and for how much it is now."""
        _WORD.pack_into(self._pages, slot * _SLOT.size + _ESTIMATE_AT, estimate)

    def note_end(self, slot: int) -> None:
        """Notes that what was delivered is all, whoever did: no report is missing any more."""
        self._pages[slot * _SLOT.size + _GUEST_AT] = 0

    def clear(self, slot: int) -> None:
        """Frees a slot: there is nothing left to settle."""
        start = slot * _SLOT.size
        self._pages[start : start + 1] = _FREE
        self._free.append(slot)

    def close(self) -> None:
        """Lets go of the file; taken slots stay for the next process."""
        self._pages.close()

    def _is_taken(self, slot: int) -> bool:
        start = slot * _SLOT.size
        return self._pages[start : start + 1] == _TAKEN

    def _read(self, slot: int) -> Entry:
        numbers = _SLOT.unpack_from(self._pages, slot * _SLOT.size)
        _, cache_result, policy, guest, hold_s, delivered, expires_at, estimate, *texts = numbers
        account_id, request_id, hold_id, meter, resource = (
            text.rstrip(b"\0").decode(errors="ignore") for text in texts
        )
        return Entry(
            account_id=account_id,
            request_id=request_id,
            meter=meter,
            cache_result=cache_result,
            resource=resource,
            estimate=estimate,
            hold_s=hold_s,
            expires_at=expires_at,
            hold_id=hold_id,
            delivered=delivered,
            policy=policy or _RELEASE,
            guest=bool(guest),
        )
