"""Pages of a listing: where the next one begins, as a token that only this listing accepts.

A token is opaque to callers: base64url without padding of a tag (TAG_BYTES) and the position, which
is the last key of the page without the listing's prefix. The tag is a hash of the listing's name,
its parameters and the position: a token that was cut, mistyped, or taken from another listing is
refused. It is no signature, and needs none: whatever the position, a page stays inside its listing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from hashlib import blake2b

from services.store.errors import PageTokenInvalidError
from services.store.port import ReadTransaction

TAG_BYTES = 8
DEFAULT_SIZE = 100


class Listing:
    """One listing, by its name and what selects or orders its items (an account, a direction)."""

    __slots__ = ("_binding",)

    def __init__(self, name: str, *parameters: str) -> None:
        """The same name and parameters make tokens that fit each other."""
        digest = blake2b(digest_size=32)
        for part in (name, *parameters):
            encoded = part.encode()
            digest.update(len(encoded).to_bytes(4, "big") + encoded)
        self._binding = digest.digest()

    def token(self, position: bytes) -> str:
        """The token of the page that begins behind ``position``."""
        encoded = base64.urlsafe_b64encode(self._tag(position) + position)
        return encoded.rstrip(b"=").decode()

    def position(self, token: str) -> bytes:
        """Where the page of ``token`` begins; raises ``PageTokenInvalidError``."""
        try:
            decoded = base64.b64decode(
                token + "=" * (-len(token) % 4), altchars="-_", validate=True
            )
        except (binascii.Error, ValueError):
            raise PageTokenInvalidError(token) from None
        position = decoded[TAG_BYTES:]
        # Compared in its encoded form: base64 has several spellings of the same bytes.
        if not position or self.token(position) != token:
            raise PageTokenInvalidError(token)
        return position

    def _tag(self, position: bytes) -> bytes:
        return blake2b(position, digest_size=TAG_BYTES, key=self._binding).digest()


def read_page(
    tx: ReadTransaction,
    listing: Listing,
    bounds: tuple[bytes, bytes],
    *,
    size: int,
    token: str,
    newest_first: bool = False,
) -> tuple[Sequence[tuple[bytes, bytes]], str]:
    """At most ``size`` pairs of the range (0: DEFAULT_SIZE), and the token of the page behind them.

    ``bounds`` are those of ``Subspace.range``: every key begins with the first without its last
    byte. An empty token asks for the first page; an empty one in the answer means that nothing is
    left. Pairs that are added or removed between two pages move nothing else.
    Raises ``PageTokenInvalidError``.
    """
    size = size or DEFAULT_SIZE
    begin, end = bounds
    prefix = begin[:-1]
    if token and newest_first:
        end = prefix + listing.position(token)
    elif token:
        begin = prefix + listing.position(token) + b"\x00"
    pairs = tx.range(begin, end, limit=size + 1, reverse=newest_first)
    if len(pairs) <= size:
        return pairs, ""
    page = pairs[:size]
    return page, listing.token(page[-1][0][len(prefix) :])
