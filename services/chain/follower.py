"""Follows a network's newest block, block by block, into the index.

Each block must be the child of the one before. When it is not, or the chain has another block where
the index has its last, a reorganisation took place: the index goes back to the last block that both
have, and on from there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import NoReturn

from services.chain.errors import NetworkUnavailableError
from services.chain.index import Index, IndexMovedError, IndexState
from services.chain.networks.port import BlockRef, Head, Network
from services.process.logs import get_logger
from services.store.errors import StoreError

_BLOCKS_PER_STEP = 16
_HASHES_PER_REQUEST = 32

_log = get_logger(__name__)


class Follower:
    """Keeps one network's index up to date.

    Args:
        network: what is followed.
        index: what is kept; several processes may keep the same one.
        poll_s: how often the network is asked for its newest block.
        moved: called after each change of the index.
    """

    def __init__(
        self, network: Network, index: Index, *, poll_s: float, moved: Callable[[], None]
    ) -> None:
        self._network = network
        self._index = index
        self._poll_s = poll_s
        self._moved = moved
        self._state: IndexState | None = None
        self.caught_up = False
        """Whether the index held the newest block when the network was last asked."""

    async def run(self) -> NoReturn:
        """Follows until it is cancelled, whatever fails in between."""
        while True:
            try:
                more = await self.step()
            except IndexMovedError:
                self._state, more = None, True
            except (NetworkUnavailableError, StoreError) as error:
                _log.warning("index_stopped", network=self._network.name, error=repr(error))
                self.caught_up = more = False
            except Exception:  # noqa: BLE001 (the index must go on; the log has the mistake)
                _log.exception("index_failed", network=self._network.name)
                self.caught_up = more = False
            if not more:
                await asyncio.sleep(self._poll_s * random.uniform(0.9, 1.1))  # noqa: S311 (spreads load)

    async def step(self) -> bool:
        """Takes in some blocks; whether there are more to take in at once.

        Raises ``NetworkUnavailableError``, ``StoreError`` and ``IndexMovedError``; may be repeated.
        """
        head = await self._network.head()
        state = self._state or await self._open(head)
        if state is None:
            return False  # the chain has not reached its start block
        before = state
        state = await self._advance(state, head)
        if state.drops == before.drops:
            state = await self._index.settle(state, head.safe, head.finalized)
        self._state = state
        self.caught_up = state.number >= head.latest.number
        if state != before:
            self._moved()
        return not self.caught_up and state != before

    async def _open(self, head: Head) -> IndexState | None:
        """The index as it is, or a new one when it is of no use."""
        state = await self._index.state()
        if (
            state is not None
            and (state.scope, state.anchor_number)
            == (self._network.scope, self._network.start_block)
            and not await self._network.disowns(state.anchor)
        ):
            return await self._index.tidy(state)
        return await self._begin(state, head)

    async def _begin(self, old: IndexState | None, head: Head) -> IndexState | None:
        start = self._network.start_block
        first = await self._network.blocks(start, start) if start <= head.latest.number else []
        if not first:
            return None
        _log.info("index_begun", network=self._network.name, number=start, again=old is not None)
        return await self._index.begin(old, first[0])

    async def _advance(self, state: IndexState, head: Head) -> IndexState:
        latest = head.latest
        if latest.number <= state.number:
            # An endpoint that lags names an earlier block of the same chain: nothing to do.
            if latest == state.cursor or await self._knows(state, latest):
                return state
            return await self._go_back(state, latest.number)
        last = min(state.number + _BLOCKS_PER_STEP, latest.number)
        blocks = await self._network.blocks(state.number + 1, last)
        parent, sound = state.hash, 0
        for block in blocks:
            if block.parent != parent:
                break
            parent, sound = block.ref.hash, sound + 1
        if sound:
            return await self._index.append(state, blocks[:sound])
        if blocks:
            return await self._go_back(state, state.number)
        return state

    async def _knows(self, state: IndexState, block: BlockRef) -> bool:
        """Whether a block is one of the index, as far as it still knows."""
        if block.number < max(state.finalized, state.anchor_number):
            return not await self._network.disowns(state.anchor)
        return (await self._index.hashes([block.number]))[0] == block.hash

    async def _go_back(self, state: IndexState, number: int) -> IndexState:
        """Drops what is not on the chain any more."""
        ancestor = await self._common_ancestor(state, number)
        if ancestor is None:
            return await self._give_up(state)
        _log.warning(
            "blocks_dropped",
            network=self._network.name,
            count=state.number - ancestor.number,
            ancestor=ancestor.number,
        )
        return await self._index.tidy(await self._index.rewind(state, ancestor))

    async def _common_ancestor(self, state: IndexState, number: int) -> BlockRef | None:
        """The last block up to ``number`` that both have; None when none is left to compare."""
        lowest = max(state.finalized, state.anchor_number)
        while number >= lowest:
            first = max(number - _HASHES_PER_REQUEST + 1, lowest)
            numbers = range(number, first - 1, -1)
            ours = await self._index.hashes(numbers)
            theirs = await self._network.hashes(numbers)
            for at, our, their in zip(numbers, ours, theirs, strict=True):
                if our is not None and our == their:
                    return BlockRef(at, our)
            number = first - 1
        return None

    async def _give_up(self, state: IndexState) -> IndexState:
        """Starts anew when every endpoint has another chain, final blocks included.

        A development chain that was started anew looks like this; on any other it must not happen,
        and one endpoint that says so among others is not believed.
        """
        floor = max(state.finalized, state.anchor_number)
        known = (await self._index.hashes([floor]))[0]
        block = state.anchor if known is None else BlockRef(floor, known)
        if not (await self._network.disowns(block) or await self._network.disowns(state.anchor)):
            raise NetworkUnavailableError("The endpoints contradict each other about final blocks.")
        _log.error("final_block_dropped", network=self._network.name, number=block.number)
        head = await self._network.head()
        return await self._begin(state, head) or state
