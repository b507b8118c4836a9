"""Endpoints that fail: the others answer, and what is wrong is never served."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tollmesh.chain.v1 import chain_pb2 as pb

from services.chain.errors import NetworkUnavailableError, ObjectNotFoundError
from services.chain.networks.evm.endpoints import Endpoints
from tests.support.anvil import CHAIN_ID, Anvil
from tests.support.chain_service import ChainClient, chain_settings, running_chain_service, until
from tests.support.rpc_proxy import (
    RpcProxy,
    altered_calldata,
    another_chain,
    running_proxy,
    truth,
)

DATA = random.Random(5).randbytes(300_000)


@pytest.fixture
async def proxy(anvil: Anvil) -> AsyncIterator[RpcProxy]:
    async with running_proxy(anvil.url) as running:
        yield running


@pytest.fixture
def dead() -> str:
    """An address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def endpoints(*urls: str, timeout_s: float = 0.3) -> Endpoints:
    return Endpoints("test", urls, chain_id=CHAIN_ID, timeout_s=timeout_s)


async def test_a_file_is_published_and_read_while_most_endpoints_are_of_no_use(
    tmp_path: Path, anvil: Anvil, dead: str
) -> None:
    async with (
        running_proxy(anvil.url) as hanging,
        running_proxy(anvil.url, another_chain) as other,
    ):
        hanging.hanging = True
        urls = (dead, hanging.url, other.url, anvil.url)
        async with running_chain_service(chain_settings(tmp_path, *urls, timeout_s=0.3)) as chain:
            cid = (await chain.publish(DATA)).cid
            await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
            info, data = await chain.read(cid)
            assert (info.finality, data) == (pb.FINALITY_FINALIZED, DATA)
    assert set(other.asked) == {"eth_chainId"}


async def test_altered_calldata_is_refused_and_the_next_endpoint_asked(
    tmp_path: Path, anvil: Anvil
) -> None:
    async with running_proxy(anvil.url, altered_calldata) as liar:
        settings = chain_settings(tmp_path, liar.url, anvil.url)
        async with running_chain_service(settings) as chain:
            cid = (await chain.publish(DATA)).cid
            await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
            assert (await chain.read(cid))[1] == DATA
        assert liar.asked["eth_getBlockByNumber"] > 0


async def test_a_node_is_never_served_from_an_endpoint_that_alters_it(
    tmp_path: Path, anvil: Anvil, proxy: RpcProxy
) -> None:
    async with running_chain_service(chain_settings(tmp_path, proxy.url)) as chain:
        cid = (await chain.publish(DATA)).cid
        await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
        await chain.until_indexed()
        proxy.alter = altered_calldata
        with pytest.raises(NetworkUnavailableError) as refused:
            await chain.read(cid)
        assert refused.value.retry_after_s
        proxy.alter = truth
        await until(lambda: _read(chain, cid), lambda data: data == DATA, "it is read again")


async def test_an_index_made_by_a_liar_alone_holds_nothing_wrong(
    tmp_path: Path, anvil: Anvil, proxy: RpcProxy
) -> None:
    for home in ("publisher", "reader"):
        (tmp_path / home).mkdir()
    writing = chain_settings(tmp_path / "publisher", anvil.url)
    reading = chain_settings(tmp_path / "reader", proxy.url, private_key_file=None)
    proxy.alter = altered_calldata
    async with running_chain_service(writing) as chain, running_chain_service(reading) as reader:
        cid = (await chain.publish(DATA)).cid
        await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
        with pytest.raises(ObjectNotFoundError):
            await reader.stat(cid)
        proxy.alter = truth
        await until(lambda: _read(reader, cid), lambda data: data == DATA, "the index goes on")


async def test_an_endpoint_that_recovers_is_used_again_without_delaying_anybody(
    proxy: RpcProxy, anvil: Anvil
) -> None:
    asking = endpoints(proxy.url, anvil.url)
    try:
        proxy.status = 503
        for _ in range(4):
            assert await asking.ask_one("eth_blockNumber") == "0x0"
        proxy.status, proxy.asked["eth_blockNumber"] = 200, 0

        async def ask() -> int:
            assert await asking.ask_one("eth_blockNumber") == "0x0"
            return proxy.asked["eth_blockNumber"]

        await until(ask, bool, "the first endpoint is asked again")
    finally:
        await asking.close()


async def test_no_endpoint_is_a_network_that_is_unavailable(dead: str, anvil: Anvil) -> None:
    async with running_proxy(anvil.url, another_chain) as other:
        asking = endpoints(dead, other.url)
        try:
            for _ in range(5):
                with pytest.raises(NetworkUnavailableError) as refused:
                    await asking.ask_one("eth_blockNumber")
                assert dead not in str(refused.value)
        finally:
            await asking.close()


async def _read(chain: ChainClient, cid: str) -> bytes:
    try:
        return (await chain.read(cid))[1]
    except (NetworkUnavailableError, ObjectNotFoundError):
        return b""
