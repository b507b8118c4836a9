"""An answer on its way out without a task of its own: a whole object that is at hand.

Most are finished in the moment that they begin. This is for those that their readers take longer
to take.

It stands where uvicorn keeps the cycle of a request, so that pipelining, draining and the end of a
connection treat it as any other. What left of it is counted by the rules of ``connection.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.edge.credit.payments import Payment
from services.edge.cut_off import CutOff
from services.edge.delivery import SLICE_BYTES, WholeSource
from services.edge.http.connection import Connection
from services.process.logs import get_logger

log = get_logger(__name__)

_TURN_BYTES = 4 * SLICE_BYTES
"""So much of one answer in a turn of the event loop; then others have theirs."""


class _NoEvent:
    """An event that nobody waits for."""

    def set(self) -> None:
        """Does nothing."""


_NO_EVENT: Final = _NoEvent()


@dataclass(frozen=True, slots=True)
class Finished:
    """An answer that is over; the public attributes are those of uvicorn's cycle."""

    response_complete: bool = True
    message_event: _NoEvent = _NO_EVENT


FINISHED: Final = Finished()


class Answer:
    """The bytes of a whole object on their way; its head, and the first of them, were written.

    Args:
        connection: to the client.
        source: the object.
        length: its size in bytes.
        payment: for all of it; settled here, whatever the end is.
        ended: called once, when it is known how much of it left.
    """

    def __init__(
        self,
        connection: Connection,
        source: WholeSource,
        length: int,
        payment: Payment,
        ended: Callable[[int], None],
    ) -> None:
        self._connection = connection
        self._source = source
        self._length = length
        self._payment = payment
        self._ended = ended
        self._position = 0
        self._body_at = 0
        self._cut_off: CutOff | None = None
        self._reading: asyncio.Task[None] | None = None
        # As uvicorn's cycle has them.
        self.response_complete = False
        self.keep_alive = True
        self.disconnected = False
        self.more_body = False
        self.message_event = _NO_EVENT

    def begin(self, body_at: int, position: int, *, all_taken: bool) -> None:
        """Sends what follows the first bytes, as fast as the kernel takes it.

        Args:
            body_at: how much had been written on the connection before the first byte.
            position: how many bytes have been written.
            all_taken: whether the kernel has them all.
        """
        self._body_at = body_at
        self._position = position
        # A reader that draws it out is cut off before what pays for it ends.
        payment = self._payment
        self._cut_off = CutOff(lambda: payment.ends_at, self._connection.abort)
        if all_taken:
            self._go_on()
        else:
            self._note()

    def drained(self) -> None:
        """There is room in the transport's buffer again."""
        if self.response_complete:
            return
        self._note()
        if self._connection.is_idle:
            self._go_on()
        else:
            self._connection.tell_all()

    def lost(self) -> None:
        """The connection has ended."""
        if not self.response_complete:
            self._end()

    def _go_on(self) -> None:
        """Sends until the kernel takes no more, the disk must be waited for, or all is sent."""
        room = _TURN_BYTES
        while self._position < self._length and not self.response_complete:
            if room <= 0:
                self._note()
                asyncio.get_running_loop().call_soon(self._go_on)
                return
            size = min(SLICE_BYTES, self._length - self._position)
            piece = self._source.at_once(self._position, size)
            if piece is None:
                self._reading = asyncio.get_running_loop().create_task(self._read(size))
                return
            room -= size
            self._position += size
            if not self._connection.send((piece,)):
                self._note()
                return
        if not self.response_complete:
            self._end()

    async def _read(self, size: int) -> None:
        try:
            await self._source.ready(self._position, size)
        except OSError as error:
            log.warning("cache_file_unreadable", error=str(error))
            self._connection.close()  # what is right still goes out, and counts
        else:
            self._go_on()

    def _note(self) -> int:
        sent = min(max(0, self._connection.sent - self._body_at), self._length)
        self._payment.deliver(sent)
        return sent

    def _end(self) -> None:
        self.response_complete = True
        if self._cut_off is not None:
            self._cut_off.cancel()
        self._connection.delivers = ""
        sent = self._note()
        self._payment.settle()
        self._ended(sent)
