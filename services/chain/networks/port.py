"""The port: what the chain service needs of a network, whichever chain it is.

A network orders *blocks*; a block carries *entries*, each saying that a node (by the digest of its
CID) can be found at a *locator*, whose meaning is the adapter's own. An adapter vouches for what it
fetches: bytes that do not match their digest never leave it. It trusts its endpoints only for the
order of blocks and for how settled they are.

Every method may raise ``NetworkUnavailableError``; all but ``Outbox.send`` are safe to repeat.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class Finality(IntEnum):
    """How settled an entry is; the larger, the more. Numbered as in the contract."""

    NONE = 0
    """It stands in no block."""
    LATEST = 1
    """In a block that a reorganisation may still drop."""
    SAFE = 2
    """In a block that is unlikely to be dropped."""
    FINALIZED = 3
    """In a block that will not be dropped."""


@dataclass(frozen=True, slots=True)
class BlockRef:
    """Names a block."""

    number: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """How far the network has come. None: it does not say, or not yet."""

    latest: BlockRef
    safe: BlockRef | None
    finalized: BlockRef | None


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a node stands."""

    digest: bytes
    locator: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """A block and the nodes that it carries, in its order."""

    ref: BlockRef
    parent: bytes
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Located:
    """Where a node was found: the earliest block of the indexed chain that carries it."""

    entry: Entry
    block: BlockRef
    finality: Finality


class Network(Protocol):
    """One network, read."""

    @property
    def name(self) -> str:
        """As in the settings."""

    @property
    def kind(self) -> str:
        """Which adapter this is."""

    @property
    def start_block(self) -> int:
        """The first block that may carry nodes."""

    @property
    def scope(self) -> bytes:
        """What counts as an entry (the inbox address). An index of another scope is of no use."""

    @property
    def outbox(self) -> Outbox | None:
        """How nodes are published; None for a network that is only read."""

    async def head(self) -> Head:
        """The newest block, and the newest safe and finalized ones."""

    async def blocks(self, first: int, last: int) -> list[Block]:
        """Blocks ``first`` to ``last``; fewer when the chain ends, or changes meanwhile.

        Callers check that each is the child of the one before.
        """

    async def hashes(self, numbers: Sequence[int]) -> list[bytes | None]:
        """The hashes of blocks on the network's chain now; None beyond its end."""

    async def disowns(self, block: BlockRef) -> bool:
        """Whether every endpoint that answers has another block at that number.

        For the one case where an index is given up: what was called final is not on the chain.
        """

    async def fetch(self, entries: Sequence[Entry]) -> list[bytes | None]:
        """The nodes' bytes, each matching its digest; None where no endpoint has the node.

        Endpoints that give other bytes are passed over. Raises ``NetworkUnavailableError`` when
        none gave the right ones.
        """

    async def close(self) -> None:
        """Lets go of connections."""


Load = Callable[[bytes], Awaitable[bytes | None]]
"""Gives a node's bytes by its digest; None when they are lost."""


class Outbox(Protocol):
    """One network, written: nodes on their way into blocks.

    What is on the way is written down in the store before it leaves, so that after a crash at any
    point the same transactions go out again and none twice.
    """

    @property
    def room(self) -> int:
        """How many more nodes may be sent now."""

    @property
    def on_the_way(self) -> AbstractSet[bytes]:
        """Digests of nodes that were sent and are not settled."""

    @property
    def trouble(self) -> str:
        """Why nothing gets through, for people; empty when all is well."""

    async def open(self, chain: bytes) -> None:
        """Reads from the store what is on the way on this chain (its first indexed block's hash).

        What was on the way on another chain is forgotten. Called again when the chain was replaced.
        """

    async def send(self, nodes: Sequence[tuple[bytes, bytes]]) -> None:
        """Sends nodes (digest, bytes), at most ``room`` of them and none that is on the way.

        When it raises, some may be on their way already; ``on_the_way`` says which.
        """

    async def tend(self, at: BlockRef, located: Mapping[bytes, Located], load: Load) -> None:
        """Sends again what got lost, pays more for what is stuck, and forgets what is settled.

        ``at`` is the last block of the index and ``located`` the nodes on the way that stand in a
        block up to it. A node that is neither located nor on the way afterwards has to be sent
        anew.
        """
