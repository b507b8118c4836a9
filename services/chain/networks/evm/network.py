"""The ``evm`` adapter, read: blocks, and nodes as the calldata of transactions to the inbox.

An entry's locator is the hash of its transaction. Only transactions to the inbox address with
calldata count, whoever sent them and whatever came of them: a node is known by its own hash, so a
stranger can publish files and cannot harm any.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from typing import Any

from services.chain.dag.cid import Cid
from services.chain.dag.node import MAX_NODE_BYTES
from services.chain.errors import NetworkUnavailableError
from services.chain.networks.evm.endpoints import (
    AnswerMissingError,
    AnswerRefusedError,
    Endpoints,
    Query,
    quantity,
)
from services.chain.networks.evm.jsonrpc import RpcError
from services.chain.networks.evm.outbox import EvmOutbox
from services.chain.networks.evm.settings import EvmSettings
from services.chain.networks.evm.signer import Signer
from services.chain.networks.evm.transaction import calldata, from_hex
from services.chain.networks.port import Block, BlockRef, Entry, Head, Outbox
from services.store.port import Store

_FETCH_BATCH = 16
"""Transactions in one request: some 2 MB of answer."""
_BLOCK_BATCH = 4
"""Blocks with their transactions in one request."""


class EvmNetwork:
    """One EVM chain. Make it inside the running loop, and close it."""

    kind = "evm"

    def __init__(self, name: str, settings: EvmSettings, store: Store) -> None:
        """``store`` is where the outbox writes down what is on the way."""
        self.name = name
        self.start_block = settings.start_block
        self.scope = from_hex(settings.inbox_address)
        self._endpoints = Endpoints(
            name, settings.endpoints, chain_id=settings.chain_id, timeout_s=settings.timeout_s
        )
        self.outbox: Outbox | None = None
        if settings.private_key_file is not None:
            signer = Signer(settings.private_key_file.read_text())
            self.outbox = EvmOutbox(name, settings, self._endpoints, signer, store)

    async def head(self) -> Head:
        """The newest block, and the newest safe and finalized ones."""
        answers = await self._endpoints.ask(
            [Query("eth_getBlockByNumber", (tag, False), _ref) for tag in _TAGS]
        )
        # Chains that do not tell these tags, or not yet, refuse them.
        latest, safe, finalized = (None if isinstance(a, RpcError) else a for a in answers)
        if latest is None:
            raise NetworkUnavailableError(f"The network {self.name!r} names no newest block.")
        return Head(latest, safe, finalized)

    async def blocks(self, first: int, last: int) -> list[Block]:
        """Blocks ``first`` to ``last``, as far as there are any."""
        blocks: list[Block] = []
        for start in range(first, last + 1, _BLOCK_BATCH):
            numbers = range(start, min(start + _BLOCK_BATCH, last + 1))
            answers = await self._endpoints.ask(
                [
                    Query(
                        "eth_getBlockByNumber",
                        (hex(number), True),
                        partial(_block, number, self.scope),
                    )
                    for number in numbers
                ]
            )
            blocks += takewhile(lambda answer: isinstance(answer, Block), answers)
            if len(blocks) < numbers.stop - first:
                break
        return blocks

    async def hashes(self, numbers: Sequence[int]) -> list[bytes | None]:
        """The hashes of blocks on the chain now."""
        answers = await self._endpoints.ask(
            [Query("eth_getBlockByNumber", (hex(number), False), _ref) for number in numbers]
        )
        return [answer.hash if isinstance(answer, BlockRef) else None for answer in answers]

    async def disowns(self, block: BlockRef) -> bool:
        """Whether all endpoints that answer have another block at that number."""
        query = Query("eth_getBlockByNumber", (hex(block.number), False), _ref)
        answers = await self._endpoints.ask_everyone(query)
        return all(answer is not None and answer.hash != block.hash for answer in answers)

    async def fetch(self, entries: Sequence[Entry]) -> list[bytes | None]:
        """The nodes' bytes, each matching its digest."""
        nodes: list[bytes | None] = []
        for at in range(0, len(entries), _FETCH_BATCH):
            answers = await self._endpoints.ask(
                [
                    Query(
                        "eth_getTransactionByHash",
                        ("0x" + entry.locator.hex(),),
                        partial(_node, entry.digest),
                    )
                    for entry in entries[at : at + _FETCH_BATCH]
                ]
            )
            nodes += [answer if isinstance(answer, bytes) else None for answer in answers]
        return nodes

    async def close(self) -> None:
        """Closes the connections."""
        await self._endpoints.close()


_TAGS = ("latest", "safe", "finalized")


def _ref(block: dict[str, Any] | None) -> BlockRef:
    if block is None:
        raise AnswerMissingError
    try:
        return BlockRef(quantity(block["number"]), _hash(block["hash"]))
    except (KeyError, TypeError, ValueError):
        raise AnswerRefusedError("a block is not well-formed") from None


def _block(number: int, inbox: bytes, block: dict[str, Any] | None) -> Block:
    ref = _ref(block)
    assert block is not None  # noqa: S101 (or _ref had raised)
    if ref.number != number:
        raise AnswerRefusedError("the block has another number than was asked for")
    to = "0x" + inbox.hex()
    try:
        parent = _hash(block["parentHash"])
        sent = [t for t in block["transactions"] if (t.get("to") or "").lower() == to]
        entries = tuple(
            Entry(Cid.of(node).digest, _hash(transaction["hash"]))
            for transaction in sent
            if 0 < len(node := calldata(transaction)) <= MAX_NODE_BYTES
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise AnswerRefusedError("a block is not well-formed") from None
    return Block(ref, parent, entries)


def _node(digest: bytes, transaction: dict[str, Any] | None) -> bytes:
    if transaction is None:
        raise AnswerMissingError
    try:
        node = from_hex(transaction["input"])
    except (KeyError, TypeError, ValueError):
        raise AnswerRefusedError("a transaction is not well-formed") from None
    if not Cid(digest).names(node):
        raise AnswerRefusedError("calldata is not the node that it was")
    return node


def _hash(text: str) -> bytes:
    value = from_hex(text)
    if len(value) != 32:
        raise ValueError(text)
    return value
