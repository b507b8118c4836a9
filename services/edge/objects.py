"""What the edge calls an object: its name, and what is known of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from services.chain.errors import CidInvalidError, NetworkNotFoundError

# The one spelling of a CID of this mesh: base32 of 01 55 1f 20 and 32 bytes, its spare bits zero.
# Only the chain service can tell more; this keeps paths and cache keys canonical.
_CID = re.compile(r"bafkr6i[a-h][a-z2-7]{50}[aeimquy4]").fullmatch
_NETWORK = re.compile(r"[a-z0-9][a-z0-9-]{0,31}").fullmatch


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """An object on a network. The CID alone names the bytes; the network says where they stand."""

    network: str
    cid: str

    @classmethod
    def parse(cls, network: str, cid: str) -> ObjectKey:
        """Checks the form of both. Raises NetworkNotFoundError or CidInvalidError."""
        check_network(network)
        if not _CID(cid):
            raise CidInvalidError
        return cls(network, cid)

    def __str__(self) -> str:
        return f"{self.network}/{self.cid}"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object from its root node."""

    cid: str
    size_bytes: int
    name: str
    media_type: str
    compressed: bool = False
    encrypted: bool = False
    finalized: bool = False
    """Whether the network that was asked will not drop it any more."""
    seen_at: float = field(default=0.0, compare=False)
    """When the network was last seen to have it, on the clock of ``time.monotonic``."""

    def standing(self, *, finalized: bool) -> ObjectInfo:
        """The same object, final or not."""
        return self if finalized is self.finalized else replace(self, finalized=finalized)


def check_network(network: str) -> None:
    """Raises NetworkNotFoundError for what cannot be the name of a network."""
    if not _NETWORK(network):
        raise NetworkNotFoundError
