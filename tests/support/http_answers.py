"""Reads what a server sent as the answers that it must be (RFC 9112), however odd the requests."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) ?[ -~]*").fullmatch
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)").fullmatch
_BODILESS = {204, 304}


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One answer as it stood on the wire."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes
    whole: bool
    """Whether the body has as many bytes as it says."""


def answers_in(data: bytes) -> list[RawAnswer]:
    """All answers in what a server sent. Raises AssertionError for what is no answer."""
    found = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        if not separator:
            assert b"HTTP/1.1 ".startswith(head[:9]), head[:200]
            break  # the connection ended within a head
        line, *lines = head.split(b"\r\n")
        match = _STATUS(line)
        assert match, line
        fields = dict(_field(text) for text in lines)
        answer, data = _body(int(match[1]), fields, data)
        found.append(answer)
    return found


def _field(line: bytes) -> tuple[bytes, bytes]:
    match = _FIELD(line)
    assert match, line
    return match[1].lower(), match[2]


def _body(status: int, fields: dict[bytes, bytes], data: bytes) -> tuple[RawAnswer, bytes]:
    if status < 200 or status in _BODILESS:
        return RawAnswer(status, fields, b"", whole=True), data
    if fields.get(b"transfer-encoding") == b"chunked":
        body, separator, rest = data.partition(b"0\r\n\r\n")
        return RawAnswer(status, fields, body, bool(separator)), rest
    # Nothing that is served begins like an answer: then this one has no body (HEAD).
    if data.startswith(b"HTTP/1.1 ") or b"content-length" not in fields:
        return RawAnswer(status, fields, b"", whole=True), data
    size = int(fields[b"content-length"])
    return RawAnswer(status, fields, data[:size], len(data) >= size), data[size:]
