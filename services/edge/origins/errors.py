"""What may go wrong with an origin. Only HTTP callers meet it, so it has a status of its own there.

The reasons are those of every service behind another.
"""

from __future__ import annotations

from services.rpc.errors import (
    DeadlineExceededError,
    DependencyUnavailableError,
    InvalidArgumentError,
)


class OriginUnavailableError(DependencyUnavailableError):
    """The origin cannot be reached, or its answer is broken off or not HTTP: 502."""


class OriginTimeoutError(DeadlineExceededError):
    """The origin does not answer in time: 504."""


class NothingStoredError(InvalidArgumentError):
    """Only a stored answer was wanted (only-if-cached), and there is none: 504."""


class LoopError(InvalidArgumentError):
    """The request has been here before (Via), or at too many edges: 508."""
