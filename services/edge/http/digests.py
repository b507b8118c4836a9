"""Digests of what is sent (RFC 9530): SHA-256, as structured fields (RFC 8941)."""

from __future__ import annotations

import base64
import hashlib
import re

_WANTED = re.compile(r"[ \t]*([a-z*][a-z0-9_.*-]*)=([0-9]|10)[ \t]*").fullmatch


def repr_digest(sha256: bytes) -> tuple[bytes, bytes]:
    """Repr-Digest: of the whole object, whichever part of it is sent."""
    return b"repr-digest", _value(sha256)


def content_digest(content: bytes | memoryview) -> tuple[bytes, bytes]:
    """Content-Digest: of what this answer sends."""
    return b"content-digest", _value(hashlib.sha256(content).digest())


def preference(header: str | None) -> int | None:
    """How much a Want-...-Digest header wants SHA-256, 1 to 10; 0 for not at all.

    None when it does not say so: there is none, it wants other algorithms, or is not well-formed.
    """
    if header is None:
        return None
    members = [_WANTED(text) for text in header.split(",")]
    if not all(members):
        return None
    wanted = {match[1]: int(match[2]) for match in members if match}
    return wanted.get("sha-256")


def _value(sha256: bytes) -> bytes:
    return b"sha-256=:" + base64.b64encode(sha256) + b":"
