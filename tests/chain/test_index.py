"""The index: made from the chain alone, and right whatever strangers send to the inbox."""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tollmesh.chain.v1 import chain_pb2 as pb

from services.chain.dag.cid import Cid
from services.chain.errors import ObjectCorruptError, ObjectNotFoundError
from services.chain.index import Index, IndexMovedError, IndexState
from services.chain.networks.port import Block, BlockRef, Entry, Finality
from services.store.open import open_store
from services.store.port import Committed, Operation
from tests.support.anvil import OTHER_FUNDED_ADDRESS, Anvil
from tests.support.chain_service import INBOX, chain_settings, running_chain_service, until

SCOPE = b"inbox"


def block(number: int, *digests: bytes, fork: int = 0, parent_fork: int = 0) -> Block:
    entries = tuple(Entry(digest, digest[::-1]) for digest in digests)
    return Block(ref(number, fork), ref(number - 1, parent_fork).hash, entries)


def ref(number: int, fork: int = 0) -> BlockRef:
    return BlockRef(number, (fork << 64 | number + 1).to_bytes(32, "big"))


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[Index]:
    store = await open_store(f"lmdb://{tmp_path}/store")
    try:
        yield Index(store, "test", SCOPE)
    finally:
        await store.close()


async def begun(index: Index, *blocks: Block) -> IndexState:
    state = await index.begin(None, block(0))
    return await index.append(state, [block(0), *blocks])


async def test_a_lost_index_is_rebuilt_from_the_chain(tmp_path: Path, anvil: Anvil) -> None:
    data = random.Random(7).randbytes(300_000)
    settings = chain_settings(tmp_path, anvil.url)
    async with running_chain_service(settings) as chain:
        cid = (await chain.publish(data)).cid
        await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
    shutil.rmtree(tmp_path / "index")
    async with running_chain_service(settings) as chain:
        height = await chain.until_indexed()
        await until(lambda: chain.stat(cid), lambda i: i.finality == pb.FINALITY_FINALIZED, "final")
        assert (await chain.read(cid))[1] == data
        assert height == await anvil.height()


async def test_an_index_of_another_inbox_is_rebuilt(tmp_path: Path, anvil: Anvil) -> None:
    data = random.Random(8).randbytes(1_000)
    elsewhere = chain_settings(tmp_path, anvil.url, inbox_address="0x" + "11" * 20)
    async with running_chain_service(elsewhere) as chain:
        cid = (await chain.publish(data)).cid
        await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
    async with running_chain_service(chain_settings(tmp_path, anvil.url)) as chain:
        await chain.until_indexed()
        with pytest.raises(ObjectNotFoundError):
            await chain.read(cid)
    async with running_chain_service(elsewhere) as chain:
        await until(chain.head, lambda h: h.indexed == h.latest, "the index follows")
        assert (await chain.read(cid))[1] == data


async def test_a_restarted_development_chain_is_followed_from_its_start(
    tmp_path: Path, anvil: Anvil
) -> None:
    data = random.Random(9).randbytes(200_000)
    async with running_chain_service(chain_settings(tmp_path, anvil.url)) as chain:
        cid = (await chain.publish(data)).cid
        await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
        second = (await chain.publish(data + b"x", request_id="publish-2")).cid
        await anvil.rpc("anvil_reset")
        await anvil.rpc("anvil_setNextBlockTimestamp", 4_000_000_000)
        await chain.until_state(second, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
        assert (await chain.read(second))[1] == data + b"x"
        assert (await chain.head()).latest.number == await anvil.height()


async def test_whatever_strangers_send_to_the_inbox_harms_nobody(
    tmp_path: Path, anvil: Anvil
) -> None:
    rng = random.Random(10)
    data = rng.randbytes(150_000)
    settings = chain_settings(tmp_path, anvil.url)

    async def send(calldata: bytes) -> None:
        transaction = {
            "from": OTHER_FUNDED_ADDRESS,
            "to": INBOX,
            "data": "0x" + calldata.hex(),
            "gas": hex(5_000_000),
        }
        await anvil.rpc("eth_sendTransaction", transaction)

    async with running_chain_service(settings) as chain:
        answer = await chain.publish(data)
        await send(b"")
        garbage = [b"\x00", rng.randbytes(100), rng.randbytes(65_535), rng.randbytes(65_536)]
        for calldata in garbage:
            await send(calldata)
        await chain.until_state(answer.cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
        # Whoever repeats a node does not make the file less settled.
        for calldata in set(await anvil.calldata_to(INBOX)) - {b"", *garbage}:
            await send(calldata)
        await anvil.mine()
        await chain.until_indexed()
        info, read = await chain.read(answer.cid)
        assert (info.finality, read) == (pb.FINALITY_FINALIZED, data)
        for calldata in garbage[:3]:
            with pytest.raises(ObjectCorruptError):
                await chain.read(str(Cid.of(calldata)))
        with pytest.raises(ObjectNotFoundError):
            await chain.read(str(Cid.of(garbage[3])))


async def test_a_block_of_many_entries_comes_in_whole(index: Index) -> None:
    digests = [digest(n) for n in range(3_500)]
    state = await begun(index, block(1, *digests))
    located = await index.locate(digests)
    assert list(located) == digests
    assert {at.block for at in located.values()} == {ref(1)}
    assert located[digests[-1]].entry.locator == digests[-1][::-1]
    assert state.cursor == ref(1)


async def test_a_rewind_drops_all_entries_of_dropped_blocks(index: Index) -> None:
    dropped = [digest(n) for n in range(10, 2_600)]
    state = await begun(index, block(1, digest(1)), block(2, digest(2), *dropped))
    state = await index.rewind(state, ref(1))
    assert await index.locate([digest(2)]) == {}, "also before the entries are removed"
    state = await index.tidy(state)
    state = await index.append(state, [block(2, digest(3), fork=1)])
    assert set(await index.locate([digest(n) for n in range(2_600)])) == {digest(1), digest(3)}
    assert await index.tidy(state) == state, "nothing is left beyond the cursor"


async def test_entries_that_a_crash_left_beyond_the_cursor_count_for_nothing(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await begun(index)
    # As after a crash between the steps of one append: entries are there, the cursor is not moved.
    crashed = Block(ref(1), ref(0).hash, tuple(Entry(digest(n), b"x") for n in range(1_500)))
    commit, commits = index._store.commit, 0

    async def commit_once(operation: Operation[Any]) -> Committed[Any]:
        nonlocal commits
        commits += 1
        if commits > 1:
            raise InterruptedError
        return await commit(operation)

    monkeypatch.setattr(index._store, "commit", commit_once)
    with pytest.raises(InterruptedError):
        await index.append(state, [crashed])
    monkeypatch.undo()
    assert await index.locate([digest(1)]) == {}
    tidied = await index.tidy(state)
    assert tidied.drops > state.drops
    with pytest.raises(IndexMovedError):
        await index.append(state, [block(1)])
    await index.append(tidied, [block(1, fork=1)])
    assert await index.locate([digest(1)]) == {}


async def test_only_what_stands_on_the_final_chain_is_called_final(index: Index) -> None:
    state = await begun(index, block(1, digest(1)), block(2, digest(2)))
    state = await index.settle(state, ref(2, fork=1), ref(2, fork=1))
    assert (await index.locate([digest(1)]))[digest(1)].finality is Finality.LATEST
    state = await index.settle(state, ref(2), ref(1))
    located = await index.locate([digest(1), digest(2)])
    assert [at.finality for at in located.values()] == [Finality.FINALIZED, Finality.SAFE]
    assert await index.settle(state, ref(1), ref(0)) == state, "it never moves back"


async def test_the_earliest_of_several_places_counts(index: Index) -> None:
    await begun(index, block(1, digest(1)), block(2, digest(1)), block(3, digest(1)))
    assert (await index.locate([digest(1)]))[digest(1)].block == ref(1)
