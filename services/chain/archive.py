"""Everything that the service does with one network: follow it, read from it, publish to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from services.chain.dag.cid import Cid
from services.chain.errors import PublicationNotFoundError
from services.chain.follower import Follower
from services.chain.index import Index
from services.chain.intake import Intake, Limits
from services.chain.library import Library
from services.chain.networks.port import BlockRef, Head, Network
from services.chain.publications import PublicationRecord, Publications
from services.chain.publisher import Publisher
from services.chain.spool import Spool
from services.store.port import Store
from services.store.requests import RequestRecords


class Archive:
    """One network's index, library and, where it is writable, its way in. Close it.

    Args:
        network: what it is about; closed with it.
        store: where the index and the publications are.
        spool_dir: where files wait that are on their way.
        records: of request ids.
        limits: of what is taken in.
        poll_s: how often the network is asked for its newest block.
        now_us: microseconds since 1970, UTC.

    Raises:
        SpoolInUseError: another process publishes from this directory.
        OSError: the directory cannot be had.
    """

    def __init__(
        self,
        network: Network,
        store: Store,
        *,
        spool_dir: Path,
        records: RequestRecords,
        limits: Limits,
        poll_s: float,
        now_us: Callable[[], int],
    ) -> None:
        self.name, self.kind = network.name, network.kind
        self._network = network
        self._index = Index(store, network.name, network.scope)
        self._publications = Publications(store, network.name)
        self._follower = Follower(network, self._index, poll_s=poll_s, moved=self._moved)
        self._spool: Spool | None = None
        self._publisher: Publisher | None = None
        self.intake: Intake | None = None
        """None for a network that is only read."""
        if network.outbox is not None:
            self._spool = Spool(spool_dir / network.name)
            self._publisher = Publisher(
                network.name,
                index=self._index,
                outbox=network.outbox,
                publications=self._publications,
                spool=self._spool,
                caught_up=lambda: self._follower.caught_up,
                now_us=now_us,
            )
            self.intake = Intake(
                store,
                index=self._index,
                publications=self._publications,
                publisher=self._publisher,
                spool=self._spool,
                records=records,
                limits=limits,
                now_us=now_us,
            )
        self.library = Library(network, self._index, self._spooled)

    async def run(self) -> None:
        """Follows and publishes until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follower.run())
            if self._publisher is not None:
                tasks.create_task(self._publisher.run())

    async def heads(self) -> tuple[Head, BlockRef | None]:
        """How far the network has come, and how far the index. None: nowhere yet."""
        head = await self._network.head()
        state, _ = await self._index.snapshot([])
        started = state is not None and state.number >= state.anchor_number
        return head, state.cursor if state is not None and started else None

    async def publication(self, cid: Cid) -> PublicationRecord:
        """How far a file has come. Raises ``PublicationNotFoundError``."""
        record = await self._publications.find(cid.digest)
        if record is None:
            raise PublicationNotFoundError
        return record

    async def close(self) -> None:
        """Finishes what is being stored, and lets go of everything."""
        if self.intake is not None:
            await self.intake.close()
        await self.library.close()
        await self._network.close()
        if self._spool is not None:
            self._spool.close()

    async def _spooled(self, digest: bytes) -> bytes | None:
        return None if self._publisher is None else await self._publisher.node(digest)

    def _moved(self) -> None:
        if self._publisher is not None:
            self._publisher.wake()
