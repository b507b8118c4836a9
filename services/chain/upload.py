"""A file while it arrives: cut into nodes, and those written to the spool, as its bytes come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from dataclasses import dataclass

from services.chain.dag.builder import FileBuilder
from services.chain.dag.cid import Cid
from services.chain.errors import ObjectTooLargeError, UploadIncompleteError
from services.chain.spool import Draft
from services.rpc.errors import StoreUnavailableError


@dataclass(frozen=True, slots=True)
class Announcement:
    """What an uploader says of a file before its bytes."""

    name: str | None
    size_bytes: int | None
    """None: not known; the end of the stream is the end of the file."""


class Upload:
    """One file. Its memory is bounded by the file's links, not by its bytes.

    Args:
        announced: what was said of it.
        draft: where its nodes go; the caller keeps or discards it.
        limit_bytes: larger files are refused.

    Raises:
        ObjectTooLargeError: the announced size is beyond the limit.
        InvalidArgumentError: the name is not one.
    """

    def __init__(self, announced: Announcement, draft: Draft, *, limit_bytes: int) -> None:
        self._announced = announced
        self._draft = draft
        self._limit_bytes = limit_bytes
        self._builder = FileBuilder(announced.name)
        self._check_limit(announced.size_bytes or 0)

    async def receive(self, pieces: AsyncIterable[bytes]) -> Cid:
        """Takes all bytes; gives the file's CID once every node is in the draft.

        Raises ``UploadIncompleteError``, ``ObjectTooLargeError`` and ``StoreUnavailableError``;
        nothing but the draft is left behind.
        """
        async for piece in pieces:
            size = self._builder.size + len(piece)
            self._check_limit(size)
            announced = self._announced.size_bytes
            if announced is not None and size > announced:
                raise UploadIncompleteError(f"More than the announced {announced} bytes came.")
            await asyncio.to_thread(self._write, piece)
        if self._announced.size_bytes not in {None, self._builder.size}:
            raise UploadIncompleteError(
                f"{self._builder.size} bytes came and not the announced "
                f"{self._announced.size_bytes}."
            )
        await asyncio.to_thread(self._finish)
        return self._builder.root

    @property
    def size_bytes(self) -> int:
        """How many bytes came."""
        return self._builder.size

    def _check_limit(self, size: int) -> None:
        if size > self._limit_bytes:
            raise ObjectTooLargeError(metadata={"limit_bytes": str(self._limit_bytes)})

    def _write(self, piece: bytes) -> None:
        try:
            for cid, node in self._builder.feed(piece):
                self._draft.add(cid.digest, node)
        except OSError as error:
            raise StoreUnavailableError("The spool cannot be written.") from error

    def _finish(self) -> None:
        try:
            for cid, node in self._builder.finish():
                self._draft.add(cid.digest, node)
        except OSError as error:
            raise StoreUnavailableError("The spool cannot be written.") from error
