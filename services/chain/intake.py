"""Takes files to be published: stored durably, or refused without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass

from services.chain.dag.cid import Cid
from services.chain.index import Index
from services.chain.job import Job
from services.chain.publications import PublicationRecord, Publications
from services.chain.publisher import Publisher
from services.chain.spool import Draft, Spool
from services.chain.upload import Announcement, Upload
from services.rpc.errors import OverloadedError, StoreUnavailableError
from services.store.errors import RequestIdReusedError, StoreError
from services.store.port import Operation, Store, Transaction
from services.store.requests import RequestRecords, fingerprint


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken."""

    object_bytes: int
    """Of one file."""
    spool_bytes: int
    """Waiting to be published; beyond it files are refused until some of it is done."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A file that is stored here."""

    cid: Cid
    size_bytes: int
    publication: PublicationRecord
    replayed: bool


class Intake:
    """One network's way in."""

    def __init__(
        self,
        store: Store,
        *,
        index: Index,
        publications: Publications,
        publisher: Publisher,
        spool: Spool,
        records: RequestRecords,
        limits: Limits,
        now_us: Callable[[], int],
    ) -> None:
        self._store = store
        self._index = index
        self._publications = publications
        self._publisher = publisher
        self._spool = spool
        self._records = records
        self._limits = limits
        self._now_us = now_us
        self._arriving: set[Draft] = set()
        self._storing: set[asyncio.Task[Accepted]] = set()

    async def accept(
        self, request_id: str, announced: Announcement, content: bytes, pieces: AsyncIterable[bytes]
    ) -> Accepted:
        """Stores a file; it is on its way to the network when this returns.

        ``content`` is what makes another request with the same id another one; the file's CID is
        added to it. Raises what ``Upload`` raises, ``OverloadedError``, and the store's errors.
        """
        waiting = self._publisher.spooled_bytes + sum(d.size_bytes for d in self._arriving)
        if waiting + (announced.size_bytes or 0) > self._limits.spool_bytes:
            raise OverloadedError("Too much waits to be published.", retry_after_s=10.0)
        draft = await self._draft()
        try:
            upload = Upload(announced, draft, limit_bytes=self._limits.object_bytes)
            cid = await upload.receive(pieces)
        except BaseException:
            self._drop(draft)
            raise
        mark = fingerprint("PublishObject", content + cid.digest)
        storing = asyncio.create_task(
            self._store_file(request_id, mark, cid, upload.size_bytes, draft)
        )
        self._storing.add(storing)
        storing.add_done_callback(self._stored)
        # Once begun it is finished, even when the caller goes away: half of it would be lost work.
        return await asyncio.shield(storing)

    async def close(self) -> None:
        """Waits for what is being stored."""
        await asyncio.gather(*self._storing, return_exceptions=True)

    async def _draft(self) -> Draft:
        try:
            draft = await asyncio.to_thread(self._spool.draft)
        except OSError as error:
            raise StoreUnavailableError("The spool cannot be written.") from error
        self._arriving.add(draft)
        return draft

    def _drop(self, draft: Draft) -> None:
        self._arriving.discard(draft)
        draft.discard()

    def _stored(self, task: asyncio.Task[Accepted]) -> None:
        self._storing.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits for it raises it

    async def _store_file(
        self, request_id: str, mark: bytes, cid: Cid, size_bytes: int, draft: Draft
    ) -> Accepted:
        root = cid.digest
        try:
            async with self._publisher.adopting:
                job = self._publisher.job(root)
                if job is None:
                    job = Job(root, await asyncio.to_thread(draft.keep, root))
                    job.place(await self._index.locate(job.missing))
                return await self._commit(request_id, mark, job, size_bytes)
        except OSError as error:
            raise StoreUnavailableError("The spool cannot be written.") from error
        finally:
            self._drop(draft)

    async def _commit(self, request_id: str, mark: bytes, job: Job, size_bytes: int) -> Accepted:
        now_us = self._now_us()

        def run(tx: Transaction) -> tuple[PublicationRecord, bool]:
            replayed = self._records.replay(tx, request_id, mark) is not None
            if not replayed:
                self._records.remember(tx, request_id, mark, b"", now_us=now_us)
            before = self._publications.get(tx, job.root)
            record = PublicationRecord(
                size_bytes=size_bytes,
                progress=job.progress,
                state=int(job.progress.state),
                create_time_us=now_us if before is None else before.create_time_us,
                update_time_us=now_us,
            )
            self._publications.put(tx, job.root, record)
            return record, replayed

        try:
            operation = Operation(run, self._publications.group)
            record, replayed = (await self._store.commit(operation)).result
        except RequestIdReusedError:
            await self._abandon(job)
            raise
        except StoreError:
            # It may have been stored all the same.
            self._publisher.reload()
            raise
        if record.active:
            self._publisher.adopt(job)
        else:
            await self._abandon(job)
        return Accepted(Cid(job.root), size_bytes, record, replayed)

    async def _abandon(self, job: Job) -> None:
        """Removes a pack that nobody needs: its file is on the chain, or was refused."""
        if not self._publisher.needs(job.root):
            await asyncio.to_thread(self._spool.remove, job.root)
