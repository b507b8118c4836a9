"""Uploads, whichever face takes them: credit set aside, handed to the chain service, paid for."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

from services.chain.errors import ObjectTooLargeError, UploadIncompleteError
from services.edge.admission import Caller
from services.edge.credit.holds import Hold, Holds, Receipt, Usage
from services.edge.objects import check_network
from services.edge.origin import Origin, Publication
from services.rpc.errors import DeadlineExceededError

METER = "upload"
_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Upload:
    """What an upload came to."""

    publication: Publication
    receipt: Receipt


class Uploads:
    """Takes uploads.

    Args:
        holds: sets credit aside before, and settles after.
        origin: the chain service.
        max_bytes: the largest upload.
    """

    def __init__(self, holds: Holds, origin: Origin, *, max_bytes: int) -> None:
        self._holds = holds
        self._origin = origin
        self._max_bytes = max_bytes

    def check(self, network: str, size_bytes: int) -> None:
        """Refuses what need not even begin. Raises NetworkNotFoundError, ObjectTooLargeError."""
        check_network(network)
        if size_bytes > self._max_bytes:
            raise ObjectTooLargeError(
                f"Uploads of at most {self._max_bytes} bytes are taken here.",
                metadata={"limit_bytes": str(self._max_bytes)},
            )

    async def take(
        self,
        caller: Caller,
        network: str,
        name: str,
        size_bytes: int,
        body: AsyncIterator[bytes],
        request_id: str | None,
    ) -> Upload:
        """Publishes a file of exactly ``size_bytes``; the account pays for it once.

        Idempotent by ``request_id`` (the caller's own, any text), which is the account's alone: a
        repetition is answered like the first, and finishes what the first did not.

        Raises the credit service's and the chain service's errors; nothing is paid then.
        """
        self.check(network, size_bytes)
        scoped = request_id and scoped_request_id(caller, "upload", request_id)
        usage = Usage(caller.account_id, METER, size_bytes, f"{network}/{name}")
        hold = await self._holds.reserve(usage, request_id=scoped)
        try:
            async with asyncio.timeout(hold.ends_at - time.monotonic()):
                publication = await self._origin.publish(
                    scoped or uuid4().hex, network, name, size_bytes, _exactly(size_bytes, body)
                )
            hold.deliver(size_bytes)
        except TimeoutError as error:
            raise DeadlineExceededError("The upload took too long.") from error
        finally:
            settlement = self._holds.settle(hold)
        return Upload(publication, await paid(hold, settlement))


async def _exactly(size_bytes: int, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The body, which was paid for by its announced size. Raises UploadIncompleteError."""
    left = size_bytes
    async for data in body:
        left -= len(data)
        if left < 0:
            break
        yield data
    if left != 0:
        raise UploadIncompleteError(f"The upload does not have the announced {size_bytes} bytes.")


async def paid(hold: Hold, settlement: asyncio.Task[Receipt | None]) -> Receipt:
    """The receipt of a settlement; what it will be when the credit service is slow to answer."""
    done, _ = await asyncio.wait([settlement], timeout=_ANSWER_S)
    if not done:
        return Receipt(hold.reserved.amount, hold.reserved.currency)
    return settlement.result() or Receipt(0, hold.reserved.currency)


def scoped_request_id(caller: Caller, verb: str, request_id: str) -> str:
    """A request id for the services behind, which do not know whose the caller's own is."""
    text = f"{caller.account_id}\0{verb}\0{request_id}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
