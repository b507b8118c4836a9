"""Keys: FoundationDB tuples under a subspace, the same bytes in every engine.

Format: the FoundationDB tuple layer (apple/foundationdb, design/tuple.md), as packed by
``fdb.tuple``, which is pure Python and needs no client library.
"""

from __future__ import annotations

from fdb import tuple as fdb_tuple  # type: ignore[import-untyped]  # fdb ships no types

Part = str | int | bytes


class Subspace:
    """A family of keys that share a prefix: ``Subspace("credits", "wallet").key(account)``."""

    __slots__ = ("prefix",)

    def __init__(self, *parts: Part) -> None:
        self.prefix: bytes = fdb_tuple.pack(parts)

    def key(self, *parts: Part) -> bytes:
        """The key of ``parts`` in this subspace; sorts as the tuple sorts."""
        return self.prefix + bytes(fdb_tuple.pack(parts))

    def parts(self, key: bytes) -> tuple[Part, ...]:
        """The parts of a key that ``key`` made."""
        return tuple(fdb_tuple.unpack(key, len(self.prefix)))

    def range(self, *parts: Part) -> tuple[bytes, bytes]:
        """The bounds of every key that begins with ``parts`` and goes on."""
        prefix = self.key(*parts)
        return prefix + b"\x00", prefix + b"\xff"
