"""Downloads that are broken off, over plain sockets and TLS; what of them reached this machine."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.deadline import DEADLINE_S
from tests.support.raw_reader import RawReader, unread_once_quiet

RECEIVE_BUFFER_BYTES = 65_536
UNSENT_BYTES = (128 + 64) * 1024
"""What the server's kernel may hold that it has not sent (TCP_NOTSENT_LOWAT, and a buffer more)."""
TLS_IN_FLIGHT_BYTES = 256 * 1024
"""What this machine may hold of a connection that was not read yet, and the records' own bytes."""
ENDINGS = ("close", "reset", "enough")
"""Going away, with or without a word, and ending one's own side but reading on."""


@dataclass(frozen=True, slots=True)
class Broken:
    """What reached this machine of an answer's body: surely, and at most."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where to download, and how much of it there is."""

    host: str
    port: int
    path: str
    headers: Mapping[str, str]
    length: int


def break_off(place: Place, dice: random.Random) -> Broken:
    """Begins a download over plain TCP and breaks it off at a random point. Blocks."""
    reader = RawReader(place.host, place.port, receive_buffer_bytes=RECEIVE_BUFFER_BYTES)
    ending = dice.choice(ENDINGS)
    try:
        reader.request(place.path, place.headers)
        reader.read(dice.randrange(place.length))
        received = reader.read_to_the_end() if ending == "enough" else reader.arrived()
    finally:
        reader.close(reset=ending == "reset")
    # An answer whose last byte the server's kernel has accepted counts as whole; else to the byte,
    # but on a busy machine a little more may arrive before the connection is closed.
    late = 0 if ending == "enough" else RECEIVE_BUFFER_BYTES
    may_be_whole = place.length - received - late <= UNSENT_BYTES
    return Broken(received, place.length if may_be_whole else received + late)


def break_off_tls(place: Place, dice: random.Random, context: ssl.SSLContext) -> Broken:
    """The same over TLS, where what the kernel still holds is not known to the byte. Blocks."""
    lines = [f"GET {place.path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in place.headers.items()]
    wanted, data, head_bytes = dice.randrange(place.length), b"", -1
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        plain.settimeout(DEADLINE_S)
        plain.connect((place.host, place.port))
        with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
            wrapped.sendall("\r\n".join([*lines, "", ""]).encode())
            received = 0
            while received < wanted or head_bytes < 0:
                piece = wrapped.recv(16_384)
                assert piece, "the connection ended"
                if head_bytes < 0:
                    data += piece
                    head_bytes = data.find(b"\r\n\r\n")
                    received = len(data) - head_bytes - 4 if head_bytes >= 0 else 0
                else:
                    received += len(piece)
            # What was read may not be acknowledged yet; going away now, it would never be.
            unread_once_quiet(wrapped)
    most = received + TLS_IN_FLIGHT_BYTES
    may_be_whole = place.length - most <= UNSENT_BYTES
    return Broken(received, place.length if may_be_whole else most)
