"""What a store raises. Services translate these to their contract's errors (see rpc.errors)."""

from __future__ import annotations


class StoreError(Exception):
    """The root of this module's errors."""


class StoreOverloadedError(StoreError):
    """Too many operations wait; nothing was done. Try again later."""


class StoreUnavailableError(StoreError):
    """The engine cannot be reached or cannot write; the outcome is unknown."""


class StoreClosedError(StoreUnavailableError):
    """The store was closed; nothing was done."""


class VersionUnknownError(StoreError):
    """A read asked for a version that no commit has had."""


class OperationTooLargeError(StoreError):
    """An operation wrote or read more than the port allows; nothing was written."""


class KeyInvalidError(StoreError):
    """A key is empty, too long, or begins with 0xff: a mistake in the operation."""


class AppendedRangeError(StoreError):
    """An operation tried to read what it had appended itself: a mistake in the operation."""


class StoreInUseError(StoreUnavailableError):
    """Another process has the store open, and the engine allows only one."""


class EngineMissingError(StoreError):
    """The engine's library is not installed; the message says what to install."""


class RequestIdReusedError(StoreError):
    """A request id was used for a different request (see ``requests``); nothing was written."""


class RecordDamagedError(StoreError):
    """A stored record is not what was written (see ``records``); nothing was made of it.

    Never an answer to a caller: a fault of the service, whose log names the record.
    """

    def __init__(self, key: bytes, what: str = "its checksum is wrong") -> None:
        super().__init__(f"the record at {key!r} is damaged: {what}")
        self.key = key


class PageTokenInvalidError(StoreError):
    """A page token is not one that the listing gave (see ``pages``)."""
