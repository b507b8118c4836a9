"""The port: an ordered map of bytes to bytes with strictly serializable transactions.

Everything that the mesh keeps goes through this interface, and every engine passes the one suite in
tests/conformance/. A second engine can be written from these comments alone.

Keys have 1 to 480 bytes (LMDB's limit) and begin with a byte below 0xff; values have at most
100,000 bytes, and what one operation reads and writes at most 1,000,000 (FoundationDB's limits).
Every engine keeps them all. Keys are made with ``fdb.tuple`` packing under a subspace (see
``services.store.keys``), so a key means the same in every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

MAX_KEY_BYTES = 480
MAX_VALUE_BYTES = 100_000
MAX_OPERATION_BYTES = 1_000_000
MAX_APPENDS = 10_000
"""What one operation appends at most."""
STAMP_BYTES = 12
"""The length of what ``append`` puts behind its prefix: it sorts in commit order."""


class ReadTransaction(Protocol):
    """A consistent view: every read sees one state, and the transaction's own writes."""

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of ``keys``, in their order, in one round trip."""

    def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """The pairs with ``begin <= key < end`` in key order.

        ``limit`` 0 means all; ``reverse`` gives the last pairs first.
        """


class Transaction(ReadTransaction, Protocol):
    """What an operation reads and writes. Nothing is seen by others before the commit."""

    def set(self, key: bytes, value: bytes) -> None:
        """Puts ``value`` at ``key``."""

    def clear(self, key: bytes) -> None:
        """Removes ``key`` if it is there."""

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """Removes every ``key`` with ``begin <= key < end``."""

    def add(self, key: bytes, delta: int) -> None:
        """Adds to a signed 64-bit little-endian counter (absent: 0) without conflicting.

        Wraps silently beyond 64 bits, and cannot enforce a floor: for balances, read and set.
        """

    def append(self, prefix: bytes, value: bytes) -> None:
        """Sets ``prefix`` + a stamp of STAMP_BYTES that the commit orders.

        Entries of later commits sort after those of earlier ones; within one operation, and from
        one operation to the next in a group, in the order of the calls. The stamp is not known
        before the commit, so whatever touches a key that an entry of this same operation may get
        (``prefix`` and any STAMP_BYTES behind it) raises ``AppendedRangeError``.
        """


@dataclass(frozen=True, slots=True)
class Operation(Generic[R_co]):
    """A pure function of a transaction; it has no side effects.

    It may run more than once, and in any thread: not two of a group at the same time.

    Time, ids and randomness are arguments that ``run`` closes over. When ``run`` raises, nothing
    that it wrote is kept, no neighbour in its group is hurt, and the exception reaches the caller.
    """

    run: Callable[[Transaction], R_co]
    group: str = ""
    """Operations of one group (an account id, say) are committed in the order of their arrival.

    Those without a group are committed in any order.
    """
    reads: Sequence[bytes] = field(default=())
    """Keys that ``run`` will probably read: fetched together in one round trip. Only a hint."""
    seal: Callable[[], None] | None = None
    """Called once, in the event loop, before anything of the operation is read or run.

    Until then ``reads``, and what ``run`` works on, may still grow. Must not raise.
    """
    weight: Callable[[], int] | None = None
    """How many callers wait for it so far, if more than one may: a store commits when enough do."""


@dataclass(frozen=True, slots=True)
class Committed(Generic[R_co]):
    """What an operation returned, and the version at which it is visible."""

    result: R_co
    version: int
    """Positive; later commits have larger ones. Operations of one group commit may share one."""


class Store(Protocol):
    """A strictly serializable store."""

    async def commit(self, operation: Operation[T]) -> Committed[T]:
        """Runs an operation and commits what it wrote, durably, before it returns.

        Raises whatever ``operation.run`` raises (nothing was written then),
        ``StoreOverloadedError`` (refused before anything was done), ``StoreUnavailableError`` (the
        outcome is unknown: only an operation that recognises its own earlier effect may be
        repeated), and from what the operation does ``OperationTooLargeError``, ``KeyInvalidError``
        or ``AppendedRangeError`` (nothing was written). Engines resolve an unknown commit
        themselves where they can: an operation is never applied twice by one call.

        Cancelling the caller does not undo the operation.
        """

    async def read(
        self, run: Callable[[ReadTransaction], T], *, at_least_version: int = 0
    ) -> Committed[T]:
        """Reads a consistent state; its version says which. ``run`` is as in an operation.

        Strictly fresh: it reflects every commit that was answered before the call. Raises
        ``VersionUnknownError`` when ``at_least_version`` is larger than any version so far, and
        ``StoreUnavailableError``; safe to repeat.
        """

    async def close(self) -> None:
        """Finishes what is under way, refuses what comes later, and lets go of the engine."""
