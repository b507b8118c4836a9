"""What is on its way, as it is written down: for each nonce, the node that it carries.

Stored: a ``Posting`` by the chain (the hash of the first block that the index has of it), the
publishing account and the nonce. Only one process may publish with an account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.store.keys import Subspace
from services.store.port import Operation, Store, Transaction
from services.store.records import Record, decoder, encode


class Posting(Record, frozen=True):
    """One nonce. Fees are in wei for each gas."""

    digest: bytes
    """The node; empty for a transaction without calldata, which only uses the nonce up."""
    gas: int
    max_fee: int
    priority_fee: int


class NonceTakenError(Exception):
    """Another process wrote down something else: it publishes with the same account."""


_decode = decoder(Posting)


class Postings:
    """The postings of one account, in memory and in the store."""

    def __init__(self, store: Store, network: str, account: str) -> None:
        self._store = store
        self._account = account
        self._group = f"outbox/{network}"
        self._keys = Subspace("chain", network, "outbox")
        self._chain = b""
        self.by_nonce: dict[int, Posting] = {}
        """The postings, in no order."""

    async def open(self, chain: bytes) -> None:
        """Reads the postings of a chain; those of other chains and accounts are removed."""
        self._chain = chain
        await self.reload()

    async def reload(self) -> None:
        """Reads what is written down now."""

        def run(tx: Transaction) -> dict[int, Posting]:
            kept = {}
            for key, value in tx.range(*self._keys.range()):
                chain, account, nonce = self._keys.parts(key)
                if (chain, account) == (self._chain, self._account):
                    kept[int(nonce)] = _decode(value)
                else:
                    tx.clear(key)
            return kept

        self.by_nonce = (await self._store.commit(Operation(run, self._group))).result

    async def put(self, postings: Mapping[int, Posting]) -> None:
        """Writes postings down, durably. Raises ``NonceTakenError``; nothing was written then."""
        if not postings:
            return
        before = {nonce: self.by_nonce.get(nonce) for nonce in postings}

        def run(tx: Transaction) -> None:
            for nonce, posting in postings.items():
                key, earlier = self._key(nonce), before[nonce]
                if tx.get(key) not in {
                    None if earlier is None else encode(earlier),
                    encode(posting),
                }:
                    raise NonceTakenError(nonce)
                tx.set(key, encode(posting))

        await self._store.commit(Operation(run, self._group))
        self.by_nonce.update(postings)

    async def remove(self, nonces: Iterable[int]) -> None:
        """Forgets nonces."""
        gone = list(nonces)
        if not gone:
            return

        def run(tx: Transaction) -> None:
            for nonce in gone:
                tx.clear(self._key(nonce))

        await self._store.commit(Operation(run, self._group))
        for nonce in gone:
            self.by_nonce.pop(nonce, None)

    def _key(self, nonce: int) -> bytes:
        return self._keys.key(self._chain, self._account, nonce)
