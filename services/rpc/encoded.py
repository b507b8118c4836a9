"""Answers that are bytes already."""

from __future__ import annotations


class Encoded:
    """What a handler may give instead of a message, where making one would cost more than it says.

    The bytes are those of the message that the contract wants; nobody checks that.
    """

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802 (as messages have it)
        """The bytes."""
        return self._data
