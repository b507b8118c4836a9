"""Transactions that get lost, stuck or in each other's way: each node still comes into a block."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tollmesh.chain.v1 import chain_pb2 as pb

from tests.support.anvil import FUNDED_ADDRESS, OTHER_FUNDED_ADDRESS, Anvil
from tests.support.chain_service import (
    INBOX,
    ChainClient,
    chain_settings,
    running_chain_service,
    until,
)

DATA = random.Random(16).randbytes(300_000)
NODES = 6
GWEI = 10**9


async def pooled(anvil: Anvil) -> list[dict[str, Any]]:
    """The account's transactions that wait for a block, by nonce."""
    accounts = (await anvil.rpc("txpool_content"))["pending"]
    waiting = {address.lower(): found for address, found in accounts.items()}.get(
        FUNDED_ADDRESS.lower(), {}
    )
    return [waiting[nonce] for nonce in sorted(waiting, key=int)]


async def until_pooled(anvil: Anvil, count: int = NODES) -> Sequence[dict[str, Any]]:
    return await until(lambda: pooled(anvil), lambda p: len(p) == count, f"{count} pooled")


async def assert_published_once(chain: ChainClient, anvil: Anvil, cid: str) -> None:
    await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
    assert (await chain.read(cid))[1] == DATA
    nodes = [data for data in await anvil.calldata_to(INBOX) if data]
    assert len(nodes) == len(set(nodes)) == NODES


async def test_transactions_that_the_pool_lost_are_sent_again(tmp_path: Path, anvil: Anvil) -> None:
    async with running_chain_service(chain_settings(tmp_path, anvil.url)) as chain:
        cid = (await chain.publish(DATA)).cid
        before = await until_pooled(anvil)
        await anvil.rpc("anvil_dropAllTransactions")
        after = await until_pooled(anvil)
        assert [t["hash"] for t in before] == [t["hash"] for t in after], "the very same"
        await assert_published_once(chain, anvil, cid)


async def test_stuck_transactions_are_replaced_by_better_paid_ones(
    tmp_path: Path, anvil: Anvil
) -> None:
    settings = chain_settings(tmp_path, anvil.url, stuck_after_s=0.3)
    async with running_chain_service(settings) as chain:
        cid = (await chain.publish(DATA)).cid
        stuck = await until_pooled(anvil)
        dear = int(stuck[0]["maxFeePerGas"], 16) * 3
        await anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(dear))
        await anvil.mine()

        async def offers() -> int:
            await anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(dear))
            await anvil.mine()
            return (await chain.publication(cid)).nodes_published

        await until(offers, lambda published: published == NODES, "they are replaced")
        await assert_published_once(chain, anvil, cid)


async def test_an_account_without_funds_is_named_and_goes_on_when_it_has_some(
    tmp_path: Path, anvil: Anvil
) -> None:
    await anvil.rpc("anvil_setBalance", FUNDED_ADDRESS, "0x0")
    async with running_chain_service(chain_settings(tmp_path, anvil.url)) as chain:
        cid = (await chain.publish(DATA)).cid
        waiting = await until(lambda: chain.publication(cid), lambda p: p.message, "a message")
        assert waiting.state == pb.PUBLICATION_STATE_PENDING
        assert "funds" in waiting.message
        await anvil.rpc("anvil_setBalance", FUNDED_ADDRESS, hex(10**20))
        await assert_published_once(chain, anvil, cid)
        assert not (await chain.publication(cid)).message


async def test_nonces_that_someone_else_uses_do_not_lose_nodes(
    tmp_path: Path, anvil: Anvil
) -> None:
    async with running_chain_service(chain_settings(tmp_path, anvil.url)) as chain:
        cid = (await chain.publish(DATA)).cid
        await until_pooled(anvil)
        await anvil.rpc("anvil_dropAllTransactions")
        transaction = {"from": FUNDED_ADDRESS, "to": OTHER_FUNDED_ADDRESS, "value": "0x1"}
        for _ in range(2):
            await anvil.rpc("eth_sendTransaction", transaction)
        await anvil.mine()
        await assert_published_once(chain, anvil, cid)


async def test_a_gap_in_the_nonces_is_filled(tmp_path: Path, anvil: Anvil) -> None:
    transaction = {"from": FUNDED_ADDRESS, "to": OTHER_FUNDED_ADDRESS, "value": "0x1"}
    await anvil.mine(2)
    for _ in range(3):
        await anvil.rpc("eth_sendTransaction", transaction)
    await anvil.mine()
    async with running_chain_service(chain_settings(tmp_path, anvil.url)) as chain:
        await chain.until_indexed()
        cid = (await chain.publish(DATA)).cid
        await until_pooled(anvil)
        await anvil.mine()
        # The others' transactions are gone, and with them the nonces before those of the nodes.
        await anvil.reorg(2)
        await assert_published_once(chain, anvil, cid)


async def test_a_lost_store_does_not_reuse_nonces_that_wait_in_the_pool(
    tmp_path: Path, anvil: Anvil
) -> None:
    homes = [tmp_path / "first", tmp_path / "second"]
    for home in homes:
        home.mkdir()
    async with running_chain_service(chain_settings(homes[0], anvil.url)) as chain:
        await chain.publish(DATA)
        first = await until_pooled(anvil)
    async with running_chain_service(chain_settings(homes[1], anvil.url)) as chain:
        other = random.Random(17).randbytes(1_000)
        cid = (await chain.publish(other)).cid
        waiting = await until_pooled(anvil, NODES + 1)
        assert waiting[:NODES] == first
        await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
