"""The ``evm`` adapter, written: nodes on their way, each bound to a nonce of one account.

Before a transaction is broadcast for the first time, its nonce is written down with the node that
it carries, and from then on that nonce carries that node and no other until the nonce is used up.
So whatever is sent again, after a crash, a reorganisation or with a higher fee, at most one of the
transactions of a nonce can stand on the chain, and no node is published twice for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import count, islice

from services.chain.errors import NetworkUnavailableError
from services.chain.networks.evm import fees
from services.chain.networks.evm.account import Account
from services.chain.networks.evm.endpoints import Endpoints
from services.chain.networks.evm.fees import Fees
from services.chain.networks.evm.postings import NonceTakenError, Posting, Postings
from services.chain.networks.evm.settings import EvmSettings
from services.chain.networks.evm.signer import Signer
from services.chain.networks.evm.transaction import BASE_GAS, calldata_gas, from_hex
from services.chain.networks.port import BlockRef, Finality, Load, Located
from services.process.logs import get_logger
from services.store.port import Store

_RESEND_S = 2.0
"""A transaction that was just broadcast may not show yet at another endpoint of the provider."""
_TENDED_AT_ONCE = 32
_BLOCKS_TO_BE_SURE = 2

_log = get_logger(__name__)


class EvmOutbox:
    """What one account has on the way. For one task at a time."""

    def __init__(
        self,
        name: str,
        settings: EvmSettings,
        endpoints: Endpoints,
        signer: Signer,
        store: Store,
    ) -> None:
        self._name = name
        self._endpoints = endpoints
        self._account = Account(name, endpoints, signer, from_hex(settings.inbox_address))
        self._postings = Postings(store, name, signer.address)
        self._limit = settings.transactions_in_flight
        self._fee_limit = round(settings.max_fee_gwei * fees.GWEI)
        self._stuck_after_s = settings.stuck_after_s
        self._used = 0
        """Nonces below it are used up, as far as the index has come."""
        self._suspects: dict[int, int] = {}
        self._progress_at = time.monotonic()
        self._trouble = ""

    @property
    def room(self) -> int:
        """How many more nodes may be sent now."""
        waiting = sum(nonce >= self._used for nonce in self._postings.by_nonce)
        return max(0, self._limit - waiting)

    @property
    def on_the_way(self) -> AbstractSet[bytes]:
        """Digests of nodes that were sent and are not settled."""
        return {p.digest for p in self._postings.by_nonce.values() if p.digest}

    @property
    def trouble(self) -> str:
        """Why nothing gets through, for people; empty when all is well."""
        return self._trouble or self._account.trouble

    async def open(self, chain: bytes) -> None:
        """Reads from the store what is on the way on this chain."""
        await self._postings.open(chain)
        self._used = 0
        self._progress_at = time.monotonic()

    async def send(self, nodes: Sequence[tuple[bytes, bytes]]) -> None:
        """Writes nodes down with a nonce each, and broadcasts them."""
        if not nodes:
            return
        offer = await fees.suggest(self._endpoints, self._fee_limit)
        factor = await self._account.gas_factor(nodes[0][1])
        start, taken = await self._account.pooled_nonce(), self._postings.by_nonce
        nonces = islice((nonce for nonce in count(start) if nonce not in taken), len(nodes))
        sent = [
            (
                nonce,
                Posting(digest, round(calldata_gas(node) * factor), *offer.as_tuple),
                node,
            )
            for nonce, (digest, node) in zip(list(nonces), nodes, strict=True)
        ]
        await self._write({nonce: posting for nonce, posting, _ in sent})
        await self._account.broadcast(sent)

    async def tend(self, at: BlockRef, located: Mapping[bytes, Located], load: Load) -> None:
        """Sends again what got lost, pays more for what is stuck, and forgets what is settled."""
        if not self._postings.by_nonce:
            self._progress_at, self._trouble = time.monotonic(), ""
            return
        used = await self._account.nonce_at(at.hash)
        if used is None:
            return  # the chain has moved on from there; the index will follow
        if used != self._used:
            self._used, self._progress_at = used, time.monotonic()
        await self._forget_settled(at, located)
        waiting = self._waiting(located)
        if not waiting:
            self._progress_at, self._trouble = time.monotonic(), ""
            return
        await self._fill_gaps(waiting)
        await self._send_lost(waiting, load)
        if time.monotonic() - self._progress_at > self._stuck_after_s:
            await self._raise_fees(waiting[:_TENDED_AT_ONCE], load)

    async def _forget_settled(self, at: BlockRef, located: Mapping[bytes, Located]) -> None:
        """Forgets used nonces, but keeps those whose block may still be dropped."""
        stolen = self._used_by_others(at, located)
        if stolen:
            _log.warning("nonces_used_by_others", network=self._name, nonces=sorted(stolen))
        settled = [
            nonce
            for nonce, posting in self._postings.by_nonce.items()
            if nonce < self._used
            and posting.digest in located
            and located[posting.digest].finality is Finality.FINALIZED
        ]
        blank = [n for n, p in self._postings.by_nonce.items() if n < self._used and not p.digest]
        await self._postings.remove({*stolen, *settled, *blank})
        for nonce in (*stolen, *settled, *blank):
            self._account.forget(nonce)

    def _used_by_others(self, at: BlockRef, located: Mapping[bytes, Located]) -> set[int]:
        """Nonces that were used up, and not by a transaction with their node.

        Endpoints may count a nonce of the block that they are just taking in; so it takes two
        looks, some blocks apart.
        """
        suspects = {
            nonce: min(self._suspects.get(nonce, at.number), at.number)
            for nonce, posting in self._postings.by_nonce.items()
            if nonce < self._used and posting.digest and posting.digest not in located
        }
        self._suspects = suspects
        return {n for n, since in suspects.items() if at.number - since >= _BLOCKS_TO_BE_SURE}

    def _waiting(self, located: Mapping[bytes, Located]) -> list[int]:
        """The nonces that have to get into a block: of missing nodes, and all before them."""
        open_ = {n: p for n, p in self._postings.by_nonce.items() if n >= self._used}
        missing = [n for n, p in open_.items() if p.digest and p.digest not in located]
        return sorted(n for n in open_ if n <= max(missing, default=-1))

    async def _fill_gaps(self, waiting: list[int]) -> None:
        """Puts empty transactions where nothing is known of a nonce that others wait for.

        Only a used nonce that came back can leave a gap: a reorganisation dropped its transaction
        after it was forgotten.
        """
        known = self._postings.by_nonce
        gaps = [n for n in range(self._used, waiting[-1]) if n not in known][:_TENDED_AT_ONCE]
        if not gaps or await self._account.pooled_nonce() != gaps[0]:
            return
        _log.warning("nonces_filled", network=self._name, first=gaps[0], count=len(gaps))
        offer = await fees.suggest(self._endpoints, self._fee_limit)
        empty = Posting(b"", BASE_GAS, *offer.as_tuple)
        await self._write(dict.fromkeys(gaps, empty))
        await self._account.broadcast([(nonce, empty, b"") for nonce in gaps])

    async def _send_lost(self, waiting: list[int], load: Load) -> None:
        """Broadcasts again what the network's pool does not know."""
        pooled = await self._account.pooled_nonce()
        lost = [n for n in waiting if n >= pooled and self._account.silent_s(n) >= _RESEND_S]
        if lost:
            _log.info("transactions_sent_again", network=self._name, first=lost[0], count=len(lost))
            await self._send_again(lost[:_TENDED_AT_ONCE], load)

    async def _raise_fees(self, nonces: list[int], load: Load) -> None:
        """Offers more for transactions that are stuck."""
        suggested = await fees.suggest(self._endpoints, self._fee_limit)
        raised = {}
        for nonce in nonces:
            posting = self._postings.by_nonce[nonce]
            old = Fees(posting.max_fee, posting.priority_fee)
            new = old.raised(suggested, self._fee_limit)
            if new is not None:
                raised[nonce] = Posting(posting.digest, posting.gas, *new.as_tuple)
        _log.warning("fees_raised", network=self._name, first=nonces[0], count=len(raised))
        self._trouble = "" if raised else "Transactions are stuck at the limit of their fees."
        self._progress_at = time.monotonic()
        await self._write(raised)
        await self._send_again(raised, load)

    async def _send_again(self, nonces: Iterable[int], load: Load) -> None:
        transactions = []
        for nonce in nonces:
            posting = self._postings.by_nonce[nonce]
            node = await load(posting.digest) if posting.digest else b""
            if node is None:
                # Lost here: the nonce is used up without it, or what follows waits for ever.
                posting = Posting(b"", BASE_GAS, posting.max_fee, posting.priority_fee)
                await self._write({nonce: posting})
                node = b""
            transactions.append((nonce, posting, node))
        await self._account.broadcast(transactions)

    async def _write(self, postings: Mapping[int, Posting]) -> None:
        try:
            await self._postings.put(postings)
        except NonceTakenError:
            self._trouble = "Another process publishes with the same account."
            await self._postings.reload()
            raise NetworkUnavailableError(self._trouble) from None
