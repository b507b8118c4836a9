"""Reorganisations on a real chain: what stood in dropped blocks is not there, and comes again."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tollmesh.chain.v1 import chain_pb2 as pb

from services.chain.errors import ObjectNotFoundError
from tests.support.anvil import Anvil
from tests.support.chain_service import (
    INBOX,
    ChainClient,
    chain_settings,
    running_chain_service,
    until,
)

SIZE = 1_000_000


@dataclass
class Watch:
    """What readers of a file saw, from beginning to end."""

    data: bytes
    finality: Counter[int] = field(default_factory=Counter)
    missing: int = 0

    async def look(self, chain: ChainClient, cid: str) -> None:
        """Reads the file whole; its bytes are right or absent."""
        try:
            info, data = await chain.read(cid)
        except ObjectNotFoundError:
            self.missing += 1
            return
        assert data == self.data
        self.finality[info.finality] += 1


@asynccontextmanager
async def reading_all_the_time(chain: ChainClient, cid: str, data: bytes) -> AsyncIterator[Watch]:
    watch = Watch(data)

    async def loop() -> None:
        while True:
            await watch.look(chain, cid)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(loop())
    try:
        yield watch
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until_following(chain: ChainClient) -> None:
    """Waits until the index has the newest block, and not another one of its number."""
    await until(chain.head, lambda head: head.indexed == head.latest, "the index follows")


@asynccontextmanager
async def publisher_and_reader(
    tmp_path: Path, anvil: Anvil
) -> AsyncIterator[tuple[ChainClient, ChainClient]]:
    """A service that publishes, and one that only knows the chain."""
    homes = [tmp_path / "publisher", tmp_path / "reader"]
    for home in homes:
        home.mkdir()
    writing = chain_settings(homes[0], anvil.url)
    reading = chain_settings(homes[1], anvil.url, private_key_file=None)
    async with running_chain_service(writing) as one, running_chain_service(reading) as other:
        yield one, other


async def test_nodes_that_a_reorg_drops_are_gone_and_published_again(
    tmp_path: Path, anvil: Anvil
) -> None:
    data = random.Random(2).randbytes(SIZE)
    async with publisher_and_reader(tmp_path, anvil) as (chain, reader):
        await anvil.mine(3)
        before = await anvil.height()
        cid = (await chain.publish(data)).cid
        await chain.until_state(cid, pb.PUBLICATION_STATE_PUBLISHED, anvil.mine_pending)
        await until_following(reader)
        async with (
            reading_all_the_time(chain, cid, data) as at_publisher,
            reading_all_the_time(reader, cid, data) as at_reader,
        ):
            await until(
                lambda: asyncio.sleep(0), lambda _: at_reader.finality.total() > 0, "a read"
            )
            await anvil.reorg(await anvil.height() - before)  # every block with a node
            await until_following(reader)
            with pytest.raises(ObjectNotFoundError) as refused:
                await reader.stat(cid)
            assert refused.value.retry_after_s
            back = await chain.until_state(cid, pb.PUBLICATION_STATE_PENDING)
            assert back.nodes_published == 0
            assert (await chain.stat(cid)).finality == pb.FINALITY_UNSPECIFIED
            await chain.until_state(cid, pb.PUBLICATION_STATE_PUBLISHED, anvil.mine_pending)
            await until_following(reader)
            assert (await reader.stat(cid)).finality == pb.FINALITY_LATEST
        for watch in (at_publisher, at_reader):
            assert watch.finality[pb.FINALITY_FINALIZED] == 0
        assert at_reader.missing > 0
        assert at_publisher.missing == 0
        await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
        await until(
            lambda: reader.stat(cid), lambda i: i.finality == pb.FINALITY_FINALIZED, "final"
        )
        assert (await reader.read(cid))[1] == data
    nodes = await anvil.calldata_to(INBOX)
    assert len(nodes) == len(set(nodes)) == 17


async def test_a_reorg_while_nodes_go_out_leaves_each_on_the_chain_once(
    tmp_path: Path, anvil: Anvil
) -> None:
    rng = random.Random(3)
    data = rng.randbytes(SIZE)
    settings = chain_settings(tmp_path, anvil.url, transactions_in_flight=3)
    async with running_chain_service(settings) as chain:
        cid = (await chain.publish(data)).cid
        for _ in range(4):
            await anvil.mine(2)
            await until_following(chain)
            await anvil.reorg(rng.randint(1, 3))
            await until_following(chain)
        await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
        assert (await chain.read(cid))[1] == data
    nodes = await anvil.calldata_to(INBOX)
    assert len(nodes) == len(set(nodes)) == 17


async def test_a_reorg_deeper_than_the_final_block_rebuilds_the_index(
    tmp_path: Path, anvil: Anvil
) -> None:
    data = random.Random(4).randbytes(100_000)
    async with running_chain_service(chain_settings(tmp_path, anvil.url)) as chain:
        await anvil.mine(3)
        cid = (await chain.publish(data)).cid
        await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
        await anvil.reorg(await anvil.height() - 2)
        await until_following(chain)
        with pytest.raises(ObjectNotFoundError):
            await chain.read(cid)
        again = await chain.publish(data, request_id="publish-2")
        assert (again.cid, again.publication.state) == (cid, pb.PUBLICATION_STATE_PENDING)
        await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
        assert (await chain.read(cid))[1] == data
