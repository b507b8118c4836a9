"""The index: where on a network's chain each node stands.

It is made from the chain alone and can be lost. It holds the blocks up to its *cursor*, one chain
without forks: entries of dropped blocks are gone before those of their successors come in. An entry
is called final only when the index itself holds the finalized block on its own chain of parents.

Stored, under the network's name: ``state``; ``hash`` by block number, from the last finalized block
on; entries twice, by digest (number, block hash, position: the locator) to be found, and by block
(number, block hash, position: the digest) to be dropped. Every write checks the state, so that
several processes may follow the same network into the same store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import cast

from services.chain.networks.port import Block, BlockRef, Entry, Finality, Located
from services.store.keys import Subspace
from services.store.port import Operation, ReadTransaction, Store, Transaction
from services.store.records import Record, changed, decoder, encode

NOWHERE = -1
"""In place of a block number: there is none yet."""
_ENTRIES_PER_OPERATION = 1_000
_LOOKUPS_PER_READ = 400


class IndexState(Record, frozen=True):
    """How far the index has come."""

    scope: bytes
    """What counts as an entry."""
    anchor_number: int
    anchor_hash: bytes
    """The first block of the index: another hash there means another chain."""
    number: int
    hash: bytes
    """The last block that it holds: the cursor."""
    safe: int = NOWHERE
    finalized: int = NOWHERE
    drops: int = 0
    """How often blocks were dropped: a reader that saw another number looks again."""

    @property
    def cursor(self) -> BlockRef:
        """The last block that it holds."""
        return BlockRef(self.number, self.hash)

    @property
    def anchor(self) -> BlockRef:
        """The first block that it holds."""
        return BlockRef(self.anchor_number, self.anchor_hash)

    def finality(self, number: int) -> Finality:
        """How settled a block of the index is."""
        if number <= self.finalized:
            return Finality.FINALIZED
        return Finality.SAFE if number <= self.safe else Finality.LATEST


class IndexMovedError(Exception):
    """Another process has moved the index; nothing was written. Look at its state again."""


_decode_state = decoder(IndexState)


class Index:
    """One network's index.

    Args:
        store: where it is kept.
        network: whose it is.
        scope: what counts as an entry; nodes of an index of another scope are not found.
    """

    def __init__(self, store: Store, network: str, scope: bytes) -> None:
        self._store = store
        self._scope = scope
        self._group = f"index/{network}"
        self._state = Subspace("chain", network, "index", "state").prefix
        self._hashes = Subspace("chain", network, "index", "hash")
        self._nodes = Subspace("chain", network, "index", "node")
        self._blocks = Subspace("chain", network, "index", "block")

    async def state(self) -> IndexState | None:
        """How far the index has come, whatever its scope; None when there is none."""
        return (await self._store.read(self._read_state)).result

    async def begin(self, old: IndexState | None, first: Block) -> IndexState:
        """Starts anew in front of a block; whatever was there is gone."""
        new = IndexState(
            scope=self._scope,
            anchor_number=first.ref.number,
            anchor_hash=first.ref.hash,
            number=first.ref.number - 1,
            hash=first.parent,
            drops=0 if old is None else old.drops + 1,
        )

        def run(tx: Transaction) -> None:
            for family in (self._hashes, self._nodes, self._blocks):
                tx.clear_range(*family.range())

        return await self._move(old, new, run)

    async def append(self, old: IndexState, blocks: Sequence[Block]) -> IndexState:
        """Takes in blocks, each the child of the one before, the first of the cursor.

        Many entries are written in several steps, the cursor with the last: what a crash leaves
        behind it is beyond the cursor, and ``tidy`` removes it.
        """
        rows = [
            (block.ref, position, entry)
            for block in blocks
            for position, entry in enumerate(block.entries)
        ]
        while len(rows) > _ENTRIES_PER_OPERATION:
            part, rows = rows[:_ENTRIES_PER_OPERATION], rows[_ENTRIES_PER_OPERATION:]
            await self._move(old, old, partial(self._write, rows=part))

        def run(tx: Transaction) -> None:
            self._write(tx, rows)
            for block in blocks:
                tx.set(self._hashes.key(block.ref.number), block.ref.hash)

        cursor = blocks[-1].ref
        return await self._move(old, changed(old, number=cursor.number, hash=cursor.hash), run)

    async def settle(
        self, old: IndexState, safe: BlockRef | None, finalized: BlockRef | None
    ) -> IndexState:
        """Notes which blocks are safe and final, as far as they are blocks of the index.

        Neither ever moves back. Hashes before the last final block are of no more use.
        """

        def run(tx: Transaction) -> IndexState:
            self._check(tx, old)
            new = old
            if safe is not None and safe.number > old.safe and self._holds(tx, safe):
                new = changed(new, safe=safe.number)
            if (
                finalized is not None
                and finalized.number > old.finalized
                and self._holds(tx, finalized)
            ):
                new = changed(new, finalized=finalized.number)
                begin, _ = self._hashes.range()
                tx.clear_range(begin, self._hashes.key(finalized.number))
            if new != old:
                tx.set(self._state, encode(new))
            return new

        return (await self._store.commit(Operation(run, self._group))).result

    async def rewind(self, old: IndexState, ancestor: BlockRef) -> IndexState:
        """Drops the blocks after ``ancestor``, which the index holds. Call ``tidy`` then."""
        new = changed(
            old,
            number=ancestor.number,
            hash=ancestor.hash,
            safe=min(old.safe, ancestor.number),
            drops=old.drops + 1,
        )

        def run(tx: Transaction) -> None:
            _, end = self._hashes.range()
            tx.clear_range(self._hashes.key(ancestor.number + 1), end)

        return await self._move(old, new, run)

    async def tidy(self, state: IndexState) -> IndexState:
        """Removes entries beyond the cursor.

        Whatever it removes counts as a drop, so that a process that was about to write the cursor
        behind these entries finds the index moved.
        """
        _, end = self._blocks.range()

        def run(tx: Transaction) -> IndexState:
            self._check(tx, state)
            begin = self._blocks.key(state.number + 1)
            beyond = tx.range(begin, end, limit=_ENTRIES_PER_OPERATION)
            for key, digest in beyond:
                tx.clear(key)
                tx.clear(self._nodes.key(digest, *self._blocks.parts(key)))
            if not beyond:
                return state
            new = changed(state, drops=state.drops + 1)
            tx.set(self._state, encode(new))
            return new

        while (tidied := (await self._store.commit(Operation(run, self._group))).result) != state:
            state = tidied
        return state

    async def hashes(self, numbers: Sequence[int]) -> list[bytes | None]:
        """The hashes of blocks of the index; None where it does not hold them, or not any more."""
        keys = [self._hashes.key(number) for number in numbers]
        return (await self._store.read(lambda tx: tx.get_many(keys))).result

    async def locate(self, digests: Iterable[bytes]) -> dict[bytes, Located]:
        """Where nodes stand; those that stand nowhere are left out.

        Each is looked up in one consistent state, many of them in several.
        """
        found: dict[bytes, Located] = {}
        source = iter(digests)
        while part := list(islice(source, _LOOKUPS_PER_READ)):
            _, located = await self.snapshot(part)
            found.update(located)
        return found

    async def snapshot(
        self, digests: Sequence[bytes]
    ) -> tuple[IndexState | None, dict[bytes, Located]]:
        """The state and where nodes stand in that very state; None when there is no index yet."""

        def run(tx: ReadTransaction) -> tuple[IndexState | None, dict[bytes, Located]]:
            state = self._read_state(tx)
            if state is None or state.scope != self._scope:
                return None, {}
            found = ((digest, self._earliest(tx, state, digest)) for digest in digests)
            return state, {digest: at for digest, at in found if at is not None}

        return (await self._store.read(run)).result

    def _earliest(self, tx: ReadTransaction, state: IndexState, digest: bytes) -> Located | None:
        """Whoever repeats a node in later blocks does not make it less settled."""
        for key, locator in tx.range(*self._nodes.range(digest), limit=1):
            _, number, block_hash, _ = self._nodes.parts(key)
            if int(number) <= state.number:
                block = BlockRef(int(number), cast("bytes", block_hash))
                return Located(Entry(digest, locator), block, state.finality(block.number))
        return None

    def _write(self, tx: Transaction, rows: Sequence[tuple[BlockRef, int, Entry]]) -> None:
        for block, position, entry in rows:
            place = (block.number, block.hash, position)
            tx.set(self._nodes.key(entry.digest, *place), entry.locator)
            tx.set(self._blocks.key(*place), entry.digest)

    def _holds(self, tx: ReadTransaction, block: BlockRef) -> bool:
        return tx.get(self._hashes.key(block.number)) == block.hash

    def _read_state(self, tx: ReadTransaction) -> IndexState | None:
        value = tx.get(self._state)
        return None if value is None else _decode_state(value)

    def _check(self, tx: ReadTransaction, expected: IndexState | None) -> None:
        if self._read_state(tx) != expected:
            raise IndexMovedError

    async def _move(
        self, old: IndexState | None, new: IndexState, write: Callable[[Transaction], None]
    ) -> IndexState:
        def run(tx: Transaction) -> None:
            self._check(tx, old)
            write(tx)
            tx.set(self._state, encode(new))

        await self._store.commit(Operation(run, self._group))
        return new
