"""Drives files from the spool onto a network, until every node stands in a final block.

What it holds in memory follows from the store, the spool and the index, so it may be killed at any
point. Nodes that stand in a block or are on the way are not sent; what a reorganisation drops is
sent again; a pack is removed once all of it is final.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

from services.chain.dag.cid import Cid
from services.chain.errors import NetworkUnavailableError
from services.chain.index import Index, IndexState
from services.chain.job import Job
from services.chain.networks.port import Outbox
from services.chain.publications import Progress, Publications, PublicationState
from services.chain.spool import Spool
from services.process.logs import get_logger
from services.store.errors import StoreError

_IDLE_S = 10.0
_BUSY_S = 1.0
_LOST = "What was stored of the file is lost or damaged. Publish it again."

_log = get_logger(__name__)


class Publisher:
    """Publishes to one network.

    Args:
        name: the network's.
        index: where nodes stand.
        outbox: how nodes leave.
        publications: what is reported.
        spool: where nodes are kept.
        caught_up: whether the index holds the newest block; nothing is sent before that.
        now_us: microseconds since 1970, UTC.
    """

    def __init__(
        self,
        name: str,
        *,
        index: Index,
        outbox: Outbox,
        publications: Publications,
        spool: Spool,
        caught_up: Callable[[], bool],
        now_us: Callable[[], int],
    ) -> None:
        self._name = name
        self._index = index
        self._outbox = outbox
        self._publications = publications
        self._spool = spool
        self._caught_up = caught_up
        self._now_us = now_us
        self._jobs: dict[bytes, Job] = {}
        self._reported: dict[bytes, tuple[Progress, str]] = {}
        self._closing: list[Job] = []
        self._chain = b""
        self._drops = 0
        self._loaded = False
        self._awake = asyncio.Event()
        self.adopting = asyncio.Lock()
        """Held while a file comes to be published here, and while one is done."""

    def wake(self) -> None:
        """Something changed: the index, or the files to publish."""
        self._awake.set()

    @property
    def spooled_bytes(self) -> int:
        """How much waits in the spool."""
        return sum(job.pack.size_bytes for job in (*self._jobs.values(), *self._closing))

    def job(self, root: bytes) -> Job | None:
        """The work on a file, if there is any."""
        return self._jobs.get(root)

    def needs(self, root: bytes) -> bool:
        """Whether the pack of a file is used here."""
        return root in self._jobs or any(job.root == root for job in self._closing)

    def adopt(self, job: Job) -> None:
        """Takes on a file whose publication is stored. For whoever holds ``adopting``."""
        self._jobs[job.root] = job
        self.wake()

    def reload(self) -> None:
        """Looks for publications in the store that are not known here."""
        self._loaded = False
        self.wake()

    async def node(self, digest: bytes) -> bytes | None:
        """A node of a file on its way, verified; None when it is in none, or damaged."""
        for job in (*self._jobs.values(), *self._closing):
            if digest in job.pack.places:
                node = await asyncio.to_thread(job.pack.read, digest)
                if node is not None and Cid(digest).names(node):
                    return node
        return None

    async def run(self) -> NoReturn:
        """Publishes until it is cancelled, whatever fails in between."""
        while True:
            self._awake.clear()
            try:
                await self.step()
                wait_s = _BUSY_S if self._jobs else _IDLE_S
            except (NetworkUnavailableError, StoreError) as error:
                _log.warning("publishing_stopped", network=self._name, error=repr(error))
                wait_s = _BUSY_S
            except Exception:  # noqa: BLE001 (publishing must go on; the log has the mistake)
                _log.exception("publishing_failed", network=self._name)
                wait_s = _BUSY_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._awake.wait()
            except TimeoutError:
                continue

    async def step(self) -> None:
        """Brings everything as far as it can be brought now. Safe to repeat.

        Raises ``NetworkUnavailableError`` and ``StoreError``.
        """
        await self._load()
        state, located = await self._index.snapshot(list(self._outbox.on_the_way))
        if state is None:
            return
        if state.anchor_hash != self._chain:
            await self._change_chain(state)
            state, located = await self._index.snapshot(list(self._outbox.on_the_way))
            if state is None:
                return
        if state.drops != self._drops:
            await self._look_again()
            self._drops = state.drops
        for job in self._jobs.values():
            job.place(located)
            job.settle(state.finalized)
        if self._caught_up():
            await self._outbox.tend(state.cursor, located, self.node)
            await self._send()
        for job in list(self._jobs.values()):
            await self._report(job)
        await self._clean_up()

    async def _load(self) -> None:
        """Takes on what the store says is to be published. At first, removes packs of others."""
        if self._loaded:
            return
        async with self.adopting:
            active = await self._publications.active()
            for root, record in active:
                if root in self._jobs:
                    continue
                pack = await asyncio.to_thread(self._spool.pack, root)
                if pack is None:
                    await self._fail(root, record.progress)
                    continue
                job = Job(root, pack)
                job.place(await self._index.locate(job.missing))
                self._jobs[root] = job
            if not self._chain:
                # Later, a pack that is not known yet may be about to be stored.
                needed = {root for root, _ in active}
                for root in await asyncio.to_thread(self._spool.roots):
                    if root not in needed:
                        await asyncio.to_thread(self._spool.remove, root)
            self._loaded = True

    async def _change_chain(self, state: IndexState) -> None:
        """The index is of a chain that was not seen here before: on start, or another one."""
        await self._outbox.open(state.anchor_hash)
        for job in self._jobs.values():
            job.restart()
            job.place(await self._index.locate(job.missing))
        self._chain, self._drops = state.anchor_hash, state.drops

    async def _look_again(self) -> None:
        """Blocks were dropped: nodes that stood in them may stand nowhere now."""
        for job in list(self._jobs.values()):
            unsettled = job.unsettled
            located = await self._index.locate(unsettled)
            job.unplace(unsettled)
            job.place(located)

    async def _send(self) -> None:
        """Sends what stands in no block and is not on the way, as far as there is room."""
        while room := self._outbox.room:
            on_the_way = self._outbox.on_the_way
            wanted: dict[bytes, Job] = {}
            for job in self._jobs.values():
                for digest in job.missing:
                    if len(wanted) == room:
                        break
                    if digest not in on_the_way:
                        wanted.setdefault(digest, job)
            if not wanted:
                return
            located = await self._index.locate(wanted)
            for job in self._jobs.values():
                job.place(located)
            nodes = [
                (digest, await self._own(digest, job))
                for digest, job in wanted.items()
                if digest not in located
            ]
            await self._outbox.send([(digest, node) for digest, node in nodes if node is not None])

    async def _own(self, digest: bytes, job: Job) -> bytes | None:
        """A node of a job; gives the job up when it is lost."""
        node = await self.node(digest)
        if node is None and job.root in self._jobs:
            async with self.adopting:
                await self._fail(job.root, job.progress)
        return node

    async def _fail(self, root: bytes, progress: Progress) -> None:
        _log.error("publication_failed", network=self._name, cid=str(Cid(root)), reason=_LOST)
        await self._publications.update(
            root, progress, now_us=self._now_us(), state=PublicationState.FAILED, message=_LOST
        )
        self._jobs.pop(root, None)

    async def _report(self, job: Job) -> None:
        """Stores how far a file has come, when that changed; ends the work when it is final."""
        progress = job.progress
        message = self._outbox.trouble if progress.state is PublicationState.PENDING else ""
        if self._reported.get(job.root) == (progress, message):
            return
        async with self.adopting:
            if self._jobs.get(job.root) is not job:
                return
            await self._publications.update(
                job.root, progress, now_us=self._now_us(), message=message
            )
            self._reported[job.root] = progress, message
            if progress.state is PublicationState.FINALIZED:
                del self._jobs[job.root], self._reported[job.root]
                self._closing.append(job)

    async def _clean_up(self) -> None:
        """Removes the packs of final files, once no transaction may need their nodes again."""
        on_the_way = self._outbox.on_the_way
        for job in list(self._closing):
            if on_the_way.isdisjoint(job.pack.places):
                async with self.adopting:
                    self._closing.remove(job)
                    if job.root not in self._jobs:
                        await asyncio.to_thread(self._spool.remove, job.root)
