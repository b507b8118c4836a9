"""How much of what was written to a client's connection really went out.

What a download costs is decided here, so this says what is counted:

- Bytes that the kernel accepted count as sent, once they left this process's buffers.
- When the connection breaks (the client went away), only the bytes count that the client's side
  acknowledged, where the kernel tells (Linux): to the byte without TLS, and with it to a few
  thousand, for records and the end of the handshake are counted too. Elsewhere those count that
  were accepted by the kernel when the last piece was written. What lay in socket buffers is not
  paid for.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

# struct tcp_info of <linux/tcp.h>: tcpi_bytes_acked, u64, without the SYN.
_BYTES_ACKED = struct.Struct("<Q")
_BYTES_ACKED_AT = 120
_TCP_INFO_BYTES = 128
_INT = struct.Struct("i")
# The contents of a full TLS record, and the least that any cipher adds to them (RFC 7905, RFC 8446,
# section 5.2). Smaller records and other ciphers add more, so what is counted is never too little.
_RECORD_BYTES, _RECORD_EXTRA_BYTES = 16_384, 21
_TLS_LOOK_S = 0.05
"""How often it is looked whether the kernel has accepted the end of an answer over TLS."""


class Connection:
    """One client connection: stands before its transport and counts.

    Everything that it does not define is the transport's.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._written = 0
        self._gone = 0
        """The least that is known to have left this process."""
        self._has_tls = transport.get_extra_info("sslcontext") is not None
        self._tls_socket = _own_socket(transport) if self._has_tls else None
        self._before_tls = _acknowledged_by_peer(self._tls_socket)
        """What the handshake took of what the kernel counts."""
        self.request_name = ""
        """What an nginx before us calls the request that was received last."""
        self.lost = False
        """Whether the connection has ended, or is ending."""
        self.ended = asyncio.Event()
        """Set when nothing more can be written or received."""
        self._drained = asyncio.Event()
        client = transport.get_extra_info("peername")
        self.peer = f"{client[0]}:{client[1]}" if client else ""
        """The client's address, as the log has it."""
        self.delivers = ""
        """The CID of the object that is being sent, if one is."""
        self._tells_all = False
        """Whether the protocol is told when the last byte has left, not only most of them."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever the transport has)
        return getattr(self._transport, name)

    @property
    def sent(self) -> int:
        """All bytes sent on this connection so far, heads of answers included."""
        # Once it ends, only ``end`` knows: a write that fails empties the buffer, too.
        if not (self.lost or self._transport.is_closing()):
            left = self._written - self._transport.get_write_buffer_size()
            if self._has_tls:
                # What is encrypted already waits in a buffer of its own, which nobody tells of.
                left = min(left, self._contents(_accepted_by_kernel(self._tls_socket), left))
            self._gone = max(self._gone, left)
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

    def send(self, parts: Sequence[bytes | memoryview]) -> bool:
        """Hands bytes to the kernel at once; whether it took all.

        When it did not, ``drained`` is called once the last of them has left. For connections
        without TLS. Nothing happens when the connection is ending.
        """
        transport = self._transport
        if self.lost or transport.is_closing():
            return False
        self.tell_all()
        for part in parts:
            self._written += len(part)
        transport.writelines(parts)
        return not (transport.get_write_buffer_size() or transport.is_closing())

    def is_closing(self) -> bool:
        """As the transport's."""
        return self._transport.is_closing()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be sent, and something may be."""
        transport = self._transport
        return not (self.lost or transport.get_write_buffer_size() or transport.is_closing())

    def tell_all(self) -> None:
        """From now on the protocol is told when the last byte of what is written has left."""
        if not self._tells_all and not self._transport.is_closing():
            self._tells_all = True
            # Nothing may wait in the buffer; so the transport also hands over at once what it gets.
            self._transport.set_write_buffer_limits(high=0)

    def tell_most(self) -> None:
        """From now on it is told as soon as there is room again: better while writing goes on."""
        if self._tells_all and not self.lost and not self._transport.is_closing():
            self._tells_all = False
            self._transport.set_write_buffer_limits()

    async def flushed(self, position: int) -> None:
        """Waits until everything up to ``position`` is sent, or the connection ends."""
        if not self._is_sent(position):
            await asyncio.sleep(0)  # what is small leaves at the end of the loop's turn
        while not self._is_sent(position):
            self._drained.clear()
            self.tell_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(_TLS_LOOK_S if self._has_tls else None):
                    await self._drained.wait()
            self.tell_most()

    def drained(self) -> None:
        """Takes note that the transport's buffer is empty enough again."""
        self._drained.set()

    def _is_sent(self, position: int) -> bool:
        return self.lost or self.sent >= position

    def abort(self) -> None:
        """Ends the connection at once; what is still buffered here is thrown away."""
        self._gone = self._acknowledged() if self._has_tls else self.sent
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
            # Over TLS also a reader that went away may end the connection in order.
            is_whole = error is None and not self._has_tls
            self._gone = self._written if is_whole else self._acknowledged()
            self.lost = True
        if self._tls_socket is not None:
            self._tls_socket.close()
        self.ended.set()
        self._drained.set()

    def _acknowledged(self) -> int:
        """What the client's side has; to be asked before the socket is closed."""
        if self._has_tls:
            counted = _acknowledged_by_peer(self._tls_socket)
            return min(self._contents(counted, self._gone), self._written)
        acknowledged = _acknowledged_by_peer(self._transport.get_extra_info("socket"))
        return self._gone if acknowledged is None else min(acknowledged, self._written)

    def _contents(self, counted: int | None, otherwise: int) -> int:
        """What records hold, of which the kernel counted so many bytes."""
        if counted is None or self._before_tls is None:
            return otherwise
        records = max(0, counted - self._before_tls)
        return -(-records * _RECORD_BYTES // (_RECORD_BYTES + _RECORD_EXTRA_BYTES))


def _own_socket(transport: asyncio.Transport) -> socket.socket | None:
    """A socket of the same connection, for asking after the transport has closed its own.

    With TLS a protocol is told of the end only then. It has to be closed, or the end is not sent.
    """
    found = transport.get_extra_info("socket")
    try:
        return socket.socket(fileno=os.dup(found.fileno()))
    except (OSError, AttributeError):
        return None


def _acknowledged_by_peer(connection: Any) -> int | None:  # noqa: ANN401 (uvloop's are no sockets)
    """The bytes that the other side of a connection has; None where the kernel does not tell."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        (acknowledged,) = _BYTES_ACKED.unpack_from(info, _BYTES_ACKED_AT)
    except (OSError, AttributeError, struct.error):
        return None
    return int(acknowledged)


def _accepted_by_kernel(connection: Any) -> int | None:  # noqa: ANN401 (as above)
    """The bytes of a connection that the kernel has taken; None where it does not tell."""
    acknowledged = _acknowledged_by_peer(connection)
    if acknowledged is None:
        return None
    try:
        (queued,) = _INT.unpack(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return None
    return acknowledged + int(queued)
