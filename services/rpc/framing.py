"""gRPC over HTTP/2, as far as it is not HTTP/2: messages in bytes, time limits, status trailers.

Format: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import grpc

from services.rpc.errors import (
    InvalidArgumentError,
    ServiceError,
    StatusError,
    request_too_large,
)
from services.rpc.wire import DETAILS_KEY, encode, message_of

Headers = list[tuple[bytes, bytes]]

PREFIX_BYTES = 5
"""Before each message: a byte that says whether it is compressed, and its length, big-endian."""

ACCEPTED_ENCODINGS = b"identity,gzip,deflate"

_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MAX_DIGITS = 8
# What zlib needs to know: 16 more than the window's size means gzip.
_WINDOW_BITS = {b"gzip": 31, b"deflate": 15}
_FAST = 1
# Printable ASCII but the percent sign itself.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if code != 0x25)


def seconds_of(timeout: bytes | None) -> float | None:
    """What a ``grpc-timeout`` allows; None when there is none, or none that can be read."""
    if timeout is None:
        return None
    digits, unit = timeout[:-1], _UNITS.get(timeout[-1:])
    if unit is None or not digits.isdigit() or len(digits) > _MAX_DIGITS:
        return None
    return int(digits) * unit


def frame(message: bytes) -> bytes:
    """A message with its prefix, not compressed."""
    return b"\x00%b%b" % (len(message).to_bytes(4, "big"), message)


def compressed_frame(message: bytes) -> bytes:
    """A message with its prefix, by gzip."""
    worker = zlib.compressobj(_FAST, wbits=_WINDOW_BITS[b"gzip"])
    packed = worker.compress(message) + worker.flush()
    return b"\x01%b%b" % (len(packed).to_bytes(4, "big"), packed)


def inflate(packed: bytes, encoding: bytes | None, limit: int) -> bytes:
    """A compressed message as it was.

    Raises:
        StatusError: UNIMPLEMENTED for an encoding that this server has not; INTERNAL when the
            message has none.
        InvalidArgumentError: the message is larger than ``limit`` bytes, or broken.
    """
    if encoding in {None, b"identity"}:
        raise StatusError(grpc.StatusCode.INTERNAL, "a compressed message without grpc-encoding")
    window_bits = _WINDOW_BITS.get(encoding or b"")
    if window_bits is None:
        raise StatusError(
            grpc.StatusCode.UNIMPLEMENTED, f"the grpc-encoding is none of: {_accepted()}"
        )
    worker = zlib.decompressobj(window_bits)
    try:
        message = worker.decompress(packed, limit + 1)
    except zlib.error:
        raise InvalidArgumentError("the request is not well compressed") from None
    if len(message) > limit:
        raise request_too_large(limit)
    if not worker.eof or worker.unused_data:
        raise InvalidArgumentError("the request is not well compressed")
    return message


def status_headers(error: ServiceError | StatusError) -> Headers:
    """A status that is not OK, for trailers or, when nothing else was sent, headers."""
    if isinstance(error, StatusError):
        code, message, details = error.code, str(error), None
    else:
        code, message, details = error.code, message_of(error), encode(error)
    headers = [
        (b"grpc-status", b"%d" % code.value[0]),
        (b"grpc-message", quote(message, safe=_PLAIN).encode()),
    ]
    if details is not None:
        headers.append((DETAILS_KEY.encode(), base64.b64encode(details).rstrip(b"=")))
    return headers


def metadata_headers(metadata: Mapping[str, str]) -> Headers:
    """A handler's metadata as headers."""
    return [(name.encode(), value.encode()) for name, value in metadata.items()]


class Messages:
    """Cuts a body into messages, however it arrives.

    Holds no more than one message (at most ``limit`` bytes) and what came with its end.
    """

    def __init__(self, encoding: bytes | None, limit: int) -> None:
        self._encoding = encoding
        self._limit = limit
        self._buffer = bytearray()

    @property
    def unfinished(self) -> bool:
        """Whether there is the beginning of a message."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Takes a part of the body; gives the messages that it completes.

        Raises:
            InvalidArgumentError: a message is larger than the limit, or not well compressed.
            StatusError: its compression is none that this server has.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= PREFIX_BYTES:
            length = int.from_bytes(buffer[1:PREFIX_BYTES], "big")
            if length > self._limit:
                raise request_too_large(self._limit)
            end = PREFIX_BYTES + length
            if len(buffer) < end:
                return
            message = bytes(buffer[PREFIX_BYTES:end])
            packed = buffer[0]
            del buffer[:end]
            yield inflate(message, self._encoding, self._limit) if packed else message


def _accepted() -> str:
    return ACCEPTED_ENCODINGS.decode().replace(",", ", ")
