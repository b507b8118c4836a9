"""The publishing account on its chain: its next nonce, what gas costs it, and broadcasting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from services.chain.networks.evm.endpoints import Endpoints, Query, quantity
from services.chain.networks.evm.jsonrpc import RpcError
from services.chain.networks.evm.postings import Posting
from services.chain.networks.evm.signer import Signer, Transaction
from services.chain.networks.evm.transaction import calldata_gas, from_hex
from services.process.logs import get_logger

_BROADCAST_BATCH = 8
"""Transactions in one request: 1 MB, below what endpoints take."""
_ROLLUP_MARGIN = 1.25
"""Where gas pays for more than execution, its amount changes from block to block."""
_KNOWN_ALREADY = ("already known", "already imported", "known transaction", "nonce too low")
_TROUBLES = {
    "insufficient funds": "The publishing account lacks funds for its transactions.",
    "underpriced": "Transactions are underpriced; their fees are being raised.",
    "gas limit": "The network's blocks have no room for a node.",
}

_log = get_logger(__name__)


class Account:
    """One account that sends nodes to one inbox."""

    def __init__(self, network: str, endpoints: Endpoints, signer: Signer, inbox: bytes) -> None:
        self._network = network
        self._endpoints = endpoints
        self._signer = signer
        self._inbox = inbox
        self._sent_at: dict[int, float] = {}
        self.address = signer.address
        self.trouble = ""
        """What the network said against the last transaction, for people; empty when it took it."""

    async def nonce_at(self, block: bytes) -> int | None:
        """The next nonce after a block of the chain; None when the block is not on it any more."""
        return await self._nonce({"blockHash": "0x" + block.hex(), "requireCanonical": True})

    async def pooled_nonce(self) -> int:
        """The first nonce without a transaction, those that wait for a block counted."""
        return await self._nonce("pending") or 0

    async def gas_factor(self, node: bytes) -> float:
        """How much more gas than on Ethereum a transaction takes here."""
        call = {"from": self.address, "to": _hex(self._inbox), "data": _hex(node)}
        try:
            estimate = await self._endpoints.ask_one("eth_estimateGas", call, read=quantity)
        except RpcError as error:
            _log.info("gas_not_estimated", network=self._network, reason=error.message)
            return 1.0
        factor = (estimate or 0) / calldata_gas(node)
        return 1.0 if factor <= 1.0 else float(factor) * _ROLLUP_MARGIN

    def silent_s(self, nonce: int) -> float:
        """How long ago this process broadcast a nonce."""
        return time.monotonic() - self._sent_at.get(nonce, float("-inf"))

    async def broadcast(self, transactions: Sequence[tuple[int, Posting, bytes]]) -> None:
        """Signs and broadcasts transactions: nonce, posting, node. Harmless to repeat.

        A node without bytes makes a transaction of the account to itself.
        """
        chain_id = await self._endpoints.chain_id()
        for at in range(0, len(transactions), _BROADCAST_BATCH):
            batch = transactions[at : at + _BROADCAST_BATCH]
            signed = await asyncio.to_thread(self._sign, chain_id, batch)
            answers = await self._endpoints.ask(
                [Query("eth_sendRawTransaction", (_hex(raw),)) for raw in signed]
            )
            for (nonce, _, _), answer in zip(batch, answers, strict=True):
                self._sent_at[nonce] = time.monotonic()
                self._note(nonce, answer)

    def forget(self, nonce: int) -> None:
        """A nonce will not be broadcast again."""
        self._sent_at.pop(nonce, None)

    def _sign(self, chain_id: int, batch: Sequence[tuple[int, Posting, bytes]]) -> list[bytes]:
        return [
            self._signer.sign(
                Transaction(
                    chain_id=chain_id,
                    nonce=nonce,
                    to=self._inbox if node else from_hex(self.address),
                    data=node,
                    gas=posting.gas,
                    max_fee=posting.max_fee,
                    priority_fee=posting.priority_fee,
                )
            )
            for nonce, posting, node in batch
        ]

    def _note(self, nonce: int, answer: object) -> None:
        if not isinstance(answer, RpcError):
            self.trouble = ""
            return
        words = answer.message.lower()
        if any(known in words for known in _KNOWN_ALREADY):
            return
        self.trouble = next(
            (people for said, people in _TROUBLES.items() if said in words),
            "The network refuses transactions; the service's log has its words.",
        )
        _log.warning(
            "transaction_refused", network=self._network, nonce=nonce, reason=answer.message
        )

    async def _nonce(self, block: object) -> int | None:
        try:
            nonce: int | None = await self._endpoints.ask_one(
                "eth_getTransactionCount", self.address, block, read=quantity
            )
        except RpcError:
            return None
        return nonce


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
