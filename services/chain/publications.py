"""Publications as they are stored: how far each file has come on its way to a network.

Stored, under the network's name: a ``PublicationRecord`` by the digest of the file's root, and a
key in ``active`` for each that still needs work.
"""

from __future__ import annotations

from enum import IntEnum

from services.store.keys import Subspace
from services.store.port import Operation, ReadTransaction, Store, Transaction
from services.store.records import Record, changed, decoder, encode


class PublicationState(IntEnum):
    """Numbered as in the contract."""

    PENDING = 1
    PUBLISHED = 2
    FINALIZED = 3
    FAILED = 4


class Progress(Record, frozen=True):
    """How many of a file's distinct nodes stand where."""

    nodes_total: int
    nodes_published: int = 0
    """In a block, final or not."""
    nodes_finalized: int = 0

    @property
    def state(self) -> PublicationState:
        """What that makes of the file."""
        if self.nodes_finalized == self.nodes_total:
            return PublicationState.FINALIZED
        if self.nodes_published == self.nodes_total:
            return PublicationState.PUBLISHED
        return PublicationState.PENDING


class PublicationRecord(Record, frozen=True):
    """A file on its way. Times are microseconds since 1970, UTC."""

    size_bytes: int
    progress: Progress
    state: int
    create_time_us: int
    update_time_us: int
    message: str = ""
    """Why it failed, or what keeps it waiting, for people."""

    @property
    def active(self) -> bool:
        """Whether it still needs work."""
        return self.state in {PublicationState.PENDING, PublicationState.PUBLISHED}


_decode = decoder(PublicationRecord)


class Publications:
    """The publications of one network."""

    def __init__(self, store: Store, network: str) -> None:
        self._store = store
        self._group = f"publications/{network}"
        self._records = Subspace("chain", network, "publication")
        self._active = Subspace("chain", network, "publication-active")

    def get(self, tx: ReadTransaction, root: bytes) -> PublicationRecord | None:
        """The publication of a file."""
        value = tx.get(self._records.key(root))
        return None if value is None else _decode(value)

    def put(self, tx: Transaction, root: bytes, record: PublicationRecord) -> None:
        """Stores a publication."""
        tx.set(self._records.key(root), encode(record))
        if record.active:
            tx.set(self._active.key(root), b"")
        else:
            tx.clear(self._active.key(root))

    async def find(self, root: bytes) -> PublicationRecord | None:
        """The publication of a file; None when there is none."""
        return (await self._store.read(lambda tx: self.get(tx, root))).result

    async def active(self) -> list[tuple[bytes, PublicationRecord]]:
        """The publications that still need work, the oldest first."""

        def run(tx: ReadTransaction) -> list[tuple[bytes, PublicationRecord]]:
            keys = (self._active.parts(key)[0] for key, _ in tx.range(*self._active.range()))
            roots = [key for key in keys if isinstance(key, bytes)]
            records = ((root, self.get(tx, root)) for root in roots)
            return [(root, record) for root, record in records if record is not None]

        found = (await self._store.read(run)).result
        return sorted(found, key=lambda pair: pair[1].create_time_us)

    async def update(
        self,
        root: bytes,
        progress: Progress,
        *,
        now_us: int,
        state: PublicationState | None = None,
        message: str = "",
    ) -> None:
        """Notes how far a publication has come; ``state`` when that does not follow from it."""

        def run(tx: Transaction) -> None:
            record = self.get(tx, root)
            if record is not None:
                new = changed(
                    record,
                    progress=progress,
                    state=int(progress.state if state is None else state),
                    update_time_us=now_us,
                    message=message,
                )
                self.put(tx, root, new)

        await self._store.commit(Operation(run, self._group))

    @property
    def group(self) -> str:
        """The group that operations on publications belong to."""
        return self._group
