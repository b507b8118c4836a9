"""How much of what was written to a client's connection really went out.

What a download costs is decided here, so this says what is counted:

- Bytes that the kernel accepted count as sent, once they left this process's buffers.
- When the connection breaks (the client went away), only the bytes count that the client's side
  acknowledged, where the kernel tells (Linux, no TLS); elsewhere those accepted by the kernel when
  the last piece was written. What lay in socket buffers is not paid for.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

# struct tcp_info of <linux/tcp.h>: tcpi_bytes_acked, u64, without the SYN.
_BYTES_ACKED = struct.Struct("<Q")
_BYTES_ACKED_AT = 120
_TCP_INFO_BYTES = 128


class Connection:
    """One client connection: stands before its transport and counts.

    Everything that it does not define is the transport's.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._written = 0
        self._gone = 0
        """The least that is known to have left this process."""
        self.lost = False
        """Whether the connection has ended, or is ending."""
        self.ended = asyncio.Event()
        """Set when nothing more can be written or received."""
        self._drained = asyncio.Event()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever the transport has)
        return getattr(self._transport, name)

    @property
    def sent(self) -> int:
        """All bytes sent on this connection so far, heads of answers included."""
        if not self.lost:
            pending = self._transport.get_write_buffer_size()
            self._gone = max(self._gone, self._written - pending)
        return self._gone

    @property
    def written(self) -> int:
        """All bytes handed over so far, sent or not."""
        return self._written

    def write(self, data: bytes | memoryview) -> None:
        """Hands bytes to the transport; nothing happens when the connection is ending."""
        if self.lost or self._transport.is_closing():
            return
        self._written += memoryview(data).nbytes
        self._transport.write(data)

    async def flushed(self, position: int) -> None:
        """Waits until everything up to ``position`` is sent, or the connection ends."""
        if not self._is_sent(position):
            await asyncio.sleep(0)  # what is small leaves at the end of the loop's turn
        while not self._is_sent(position):
            self._drained.clear()
            # The protocol is told when the buffer has been above the limit and is empty again.
            self._transport.set_write_buffer_limits(high=0)
            await self._drained.wait()
            self._transport.set_write_buffer_limits()

    def drained(self) -> None:
        """Takes note that the transport's buffer is empty enough again."""
        self._drained.set()

    def _is_sent(self, position: int) -> bool:
        return self.lost or self.sent >= position

    def abort(self) -> None:
        """Ends the connection at once; what is still buffered here is thrown away."""
        self._gone = self.sent
        self.lost = True
        self._transport.abort()

    async def finish(self, timeout_s: float) -> None:
        """Sends what is buffered and ends the connection; gives up after a while."""
        self._transport.close()
        try:
            async with asyncio.timeout(timeout_s):
                await self.ended.wait()
        except TimeoutError:
            self.abort()

    def end(self, error: Exception | None) -> None:
        """Takes note that the connection has ended; ``error`` is why, None for an orderly end."""
        if not self.lost:
            self._gone = self._written if error is None else self._acknowledged()
            self.lost = True
        self.ended.set()
        self._drained.set()

    def _acknowledged(self) -> int:
        """What the client's side has; to be asked before the socket is closed."""
        if self._transport.get_extra_info("sslcontext") is not None:
            return self._gone
        try:
            info = self._transport.get_extra_info("socket").getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES
            )
            (acknowledged,) = _BYTES_ACKED.unpack_from(info, _BYTES_ACKED_AT)
        except (OSError, AttributeError, struct.error):
            return self._gone
        return min(int(acknowledged), self._written)
