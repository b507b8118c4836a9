"""The name of a node: the blake3-256 of its bytes, written as a CID.

A CID of this mesh is version 1, codec raw (0x55), multihash code 0x1f and length 32, in lower-case
base32 (multibase ``b``): 59 characters that begin with ``bafkr6i``. Code 0x1f is what
``@autonomys/auto-dag-data`` writes; blake3 is registered as 0x1e in the multicodec table, and CIDs
with that code are names of something else here.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from blake3 import blake3

from services.chain.errors import CidInvalidError

DIGEST_BYTES = 32
CID_PREFIX = bytes((0x01, 0x55, 0x1F, DIGEST_BYTES))
"""Version, codec, multihash code and length: the binary CID without its digest."""

_TEXT_PREFIX = "bafkr6i"
_TEXT_LENGTH = 59
_BASE32 = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_BASES = {"B": "base32 in upper case", "z": "base58", "u": "base64url", "f": "hex", "k": "base36"}
_CODECS = {0x70: "dag-pb", 0x71: "dag-cbor"}
_HASHES = {0x12: "sha2-256", 0x1E: "blake3 as registered"}


@dataclass(frozen=True, slots=True)
class Cid:
    """The name of a node. Two are equal when their digests are."""

    digest: bytes

    def __post_init__(self) -> None:
        if len(self.digest) != DIGEST_BYTES:
            raise CidInvalidError(
                f"A CID's digest has {DIGEST_BYTES} bytes, not {len(self.digest)}."
            )

    @classmethod
    def of(cls, node: bytes) -> Cid:
        """The CID of a node's encoded bytes."""
        return cls(blake3(node).digest())

    @classmethod
    def parse(cls, text: str) -> Cid:
        """Read a CID as ``str()`` writes it.

        Raises:
            CidInvalidError: for anything else; the message says in what it differs.
        """
        if not text.startswith(_TEXT_PREFIX) or not _BASE32.issuperset(text):
            raise CidInvalidError(_what_differs(text))
        if len(text) != _TEXT_LENGTH:
            message = f"The CID has {len(text)} characters and not {_TEXT_LENGTH}: cut or mistyped."
            raise CidInvalidError(message)
        cid = cls(_decode_base32(text[1:])[len(CID_PREFIX) :])
        if str(cid) != text:
            raise CidInvalidError("The last character of the CID has bits that belong to no byte.")
        return cid

    def names(self, node: bytes) -> bool:
        """Whether these are the bytes that this CID names."""
        return bool(blake3(node).digest() == self.digest)

    def __str__(self) -> str:
        text = base64.b32encode(CID_PREFIX + self.digest).decode("ascii")
        return "b" + text.rstrip("=").lower()


def _decode_base32(body: str) -> bytes:
    """The whole bytes in ``body``, which has characters of base32 only."""
    return base64.b32decode(body.upper() + "=" * (-len(body) % 8))


def _what_differs(text: str) -> str:
    """Why a text that does not begin like a CID of this mesh, or has other characters, is none."""
    wanted = f"a CID here begins with {_TEXT_PREFIX} (base32, version 1, raw, blake3 as 0x1f)"
    if text.startswith("Qm"):
        return f"This CID has version 0; {wanted}."
    if text[:1] in _BASES:
        return f"This CID is {_BASES[text[0]]}; {wanted}."
    if not text.startswith("b") or len(text) <= 8:
        return f"Not a CID; {wanted}."
    if not _BASE32.issuperset(text):
        return f"The CID has a character that is not a to z or 2 to 7; {wanted}."
    return f"{_what_differs_in_head(_decode_base32(text[1:9]))}; {wanted}."


def _what_differs_in_head(head: bytes) -> str:
    """The same of the first five bytes. Codes above 0x7f are not told apart."""
    version, codec, code, length = head[:4]
    if version != CID_PREFIX[0]:
        return f"The CID has version {version}"
    if codec != CID_PREFIX[1]:
        return f"The CID's codec is {hex(codec)} ({_CODECS.get(codec, 'another')}) and not raw"
    if code != CID_PREFIX[2]:
        return f"The CID's hash is {hex(code)} ({_HASHES.get(code, 'another')}) and not 0x1f"
    return f"The CID's hash has {length} bytes and not {DIGEST_BYTES}"
