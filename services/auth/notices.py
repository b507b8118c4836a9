"""What account holders should be told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class NoticeKind(IntEnum):
    """What a notice is about; the numbers are the contract's."""

    LOCATION_HOPPING = 1


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell; the message is for people, in English."""

    kind: NoticeKind
    message: str


LOCATION_HOPPING = Notice(
    NoticeKind.LOCATION_HOPPING,
    "Each region has a cache of its own. Constantly changing locations, through a VPN for "
    "example, makes downloads slower: each change starts at a cache that may not have your files.",
)
"""Told when an account is made."""
