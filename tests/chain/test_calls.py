"""The contract over the wire: what is answered, and how each call is refused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tollmesh.chain.v1 import chain_pb2 as pb

from services.chain.dag.builder import FileBuilder
from services.chain.dag.cid import Cid
from services.chain.errors import (
    CidInvalidError,
    NetworkNotFoundError,
    ObjectNotFoundError,
    ObjectTooLargeError,
    PublicationNotFoundError,
    RangeNotSatisfiableError,
    UploadIncompleteError,
)
from services.rpc.errors import (
    InvalidArgumentError,
    OverloadedError,
    PageTokenInvalidError,
    RequestIdReusedError,
)
from tests.support.anvil import Anvil
from tests.support.chain_service import (
    INBOX,
    NETWORK,
    ChainClient,
    chain_settings,
    running_chain_service,
    upload,
)
from tests.support.file_dag import seeded_bytes
from tests.support.rpc_proxy import running_proxy

LIMIT = 400_000
UNKNOWN = str(Cid.of(b"nothing"))


@pytest.fixture
async def chain(tmp_path: Path, anvil: Anvil) -> AsyncIterator[ChainClient]:
    settings = chain_settings(tmp_path, anvil.url)
    read_only = {**settings["networks"][NETWORK], "private_key_file": None}
    settings["networks"] |= {f"evm-{n}": read_only for n in range(3)}
    settings |= {"max_object_bytes": LIMIT, "max_spool_bytes": 3 * LIMIT}
    async with running_chain_service(settings) as client:
        yield client


def header(**fields: object) -> pb.PublishObjectHeader:
    return pb.PublishObjectHeader(**{"request_id": "publish-1", "network": NETWORK, **fields})  # type: ignore[arg-type]  # protobuf checks


async def test_networks_are_listed_in_pages_by_name(chain: ChainClient) -> None:
    request = pb.ListNetworksRequest(page_size=3)
    first = await chain.stub.ListNetworks(request)
    assert [(n.name, n.kind, n.writable) for n in first.networks] == [
        ("evm-0", "evm", False),
        ("evm-1", "evm", False),
        ("evm-2", "evm", False),
    ]
    second = await chain.stub.ListNetworks(
        pb.ListNetworksRequest(page_size=3, page_token=first.next_page_token)
    )
    assert [(n.name, n.writable) for n in second.networks] == [(NETWORK, True)]
    assert not second.next_page_token
    with pytest.raises(PageTokenInvalidError):
        await chain.stub.ListNetworks(pb.ListNetworksRequest(page_token="guessed"))


async def test_heads_say_how_far_the_network_and_the_index_have_come(
    chain: ChainClient, anvil: Anvil
) -> None:
    await anvil.mine(6)
    await chain.until_indexed()
    head = await chain.head()
    numbers = [b.number for b in (head.latest, head.safe, head.finalized, head.indexed)]
    assert numbers == [6, 4, 2, 6]
    block = await anvil.rpc("eth_getBlockByNumber", "0x6", False)
    assert head.indexed.hash == head.latest.hash == block["hash"]


async def test_what_is_not_known_is_refused(chain: ChainClient) -> None:
    with pytest.raises(ObjectNotFoundError) as missing:
        await chain.stat(UNKNOWN)
    assert missing.value.retry_after_s
    with pytest.raises(ObjectNotFoundError):
        await chain.read(UNKNOWN)
    with pytest.raises(PublicationNotFoundError):
        await chain.publication(UNKNOWN)
    with pytest.raises(CidInvalidError):
        await chain.stat(UNKNOWN[:-1])
    with pytest.raises(NetworkNotFoundError):
        await chain.stub.GetHead(pb.GetHeadRequest(network="nowhere"))


@pytest.mark.parametrize("size", [0, 1, 65_066, 65_067])
async def test_files_of_any_size_are_read_as_they_were(chain: ChainClient, size: int) -> None:
    data = random.Random(size).randbytes(size)
    cid = (await chain.publish(data)).cid
    info, read = await chain.read(cid)
    assert (read, info.size_bytes, info.name) == (data, size, "")
    assert info.media_type == "application/octet-stream"


async def test_ranges_are_cut_at_the_end_and_refused_beyond_it(chain: ChainClient) -> None:
    data = random.Random(11).randbytes(200_000)
    cid = (await chain.publish(data)).cid
    assert (await chain.read(cid, 65_000, 100))[1] == data[65_000:65_100]
    assert (await chain.read(cid, 199_999, 100))[1] == data[-1:]
    assert (await chain.read(cid, 200_000))[1] == b""
    assert (await chain.read(cid, 5, 0))[1] == b""
    with pytest.raises(RangeNotSatisfiableError) as refused:
        await chain.read(cid, 200_001)
    assert refused.value.metadata == {"size_bytes": "200000"}


async def test_a_repeated_request_gets_the_first_answer_and_a_changed_one_is_refused(
    chain: ChainClient,
) -> None:
    first = await chain.publish(b"one", "name")
    again = await chain.publish(b"one", "name")
    assert (first.replayed, again.replayed) == (False, True)
    assert (again.cid, again.size_bytes) == (first.cid, first.size_bytes)
    for data, name in ((b"two", "name"), (b"one", "other"), (b"one", None)):
        with pytest.raises(RequestIdReusedError):
            await chain.publish(data, name)
    other = await chain.publish(b"one", "name", request_id="publish-2")
    assert (other.cid, other.replayed) == (first.cid, False)


async def test_a_refused_file_leaves_nothing_behind(chain: ChainClient, tmp_path: Path) -> None:
    await chain.publish(b"one")
    for attempt in (chain.publish(b"other"), chain.publish(bytes(LIMIT + 1), request_id="r")):
        with pytest.raises((RequestIdReusedError, ObjectTooLargeError)):
            await attempt
    spool = await asyncio.to_thread(lambda: [*(tmp_path / "spool" / NETWORK).iterdir()])
    assert sorted(path.suffix for path in spool) == ["", ".pack"]


async def test_a_file_beyond_the_limit_is_refused_announced_or_not(chain: ChainClient) -> None:
    data = bytes(LIMIT + 1)
    for announced in (header(size_bytes=LIMIT + 1), header()):
        with pytest.raises(ObjectTooLargeError) as refused:
            await chain.stub.PublishObject(upload(announced, data))
        assert refused.value.metadata == {"limit_bytes": str(LIMIT)}


async def test_a_full_spool_refuses_files_until_there_is_room(
    chain: ChainClient, anvil: Anvil
) -> None:
    rng = random.Random(12)
    cids = [(await chain.publish(rng.randbytes(LIMIT), request_id=f"r{n}")).cid for n in range(2)]
    with pytest.raises(OverloadedError):
        await chain.publish(rng.randbytes(LIMIT), request_id="r2")
    for cid in cids:
        await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
    await chain.publish(rng.randbytes(LIMIT), request_id="r3")


async def test_a_stream_that_breaks_its_announcement_is_refused(chain: ChainClient) -> None:
    data = pb.PublishObjectRequest(data=b"123")
    first = pb.PublishObjectRequest(header=header(size_bytes=6))
    for requests in ([], [data], [first, data], [first, data, data, data], [first, data, first]):
        with pytest.raises(UploadIncompleteError):
            await chain.stub.PublishObject(iter(requests))


async def test_a_network_without_a_key_is_read_only(chain: ChainClient) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await chain.stub.PublishObject(upload(header(network="evm-1"), b"data"))
    assert refused.value.violations == {"header.network": "is read-only"}


async def test_equal_nodes_go_out_once_also_of_two_files(chain: ChainClient, anvil: Anvil) -> None:
    chunk = random.Random(13).randbytes(65_066)
    files = [chunk * 3, chunk * 3 + b"end"]
    cids = [(await chain.publish(d, request_id=f"r{n}")).cid for n, d in enumerate(files)]
    for cid, data in zip(cids, files, strict=True):
        await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
        assert (await chain.read(cid))[1] == data
    nodes = await anvil.calldata_to(INBOX)
    assert len(nodes) == len(set(nodes)) == 4


async def test_publishing_what_is_published_costs_nothing(chain: ChainClient, anvil: Anvil) -> None:
    data = random.Random(14).randbytes(200_000)
    cid = (await chain.publish(data)).cid
    await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
    again = (await chain.publish(data, request_id="again")).publication
    assert again.state == pb.PUBLICATION_STATE_FINALIZED
    assert again.nodes_finalized == again.nodes_total == 5
    await anvil.mine(2)
    assert len(await anvil.calldata_to(INBOX)) == 5


async def test_the_cid_is_the_one_that_the_file_has_anywhere(chain: ChainClient) -> None:
    data = seeded_bytes("tollmesh", 100_000)
    builder = FileBuilder("a.txt")
    _ = [*builder.feed(data), *builder.finish()]
    assert (await chain.publish(data, "a.txt")).cid == str(builder.root)


async def test_identical_reads_at_once_fetch_each_node_once(tmp_path: Path, anvil: Anvil) -> None:
    data = random.Random(15).randbytes(1_000_000)
    async with (
        running_proxy(anvil.url) as proxy,
        running_chain_service(chain_settings(tmp_path, proxy.url)) as chain,
    ):
        cid = (await chain.publish(data)).cid
        await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
        await chain.until_indexed()
        proxy.asked.clear()
        reads = await asyncio.gather(*(chain.read(cid) for _ in range(8)))
        assert {read for _, read in reads} == {data}
        assert proxy.asked["eth_getTransactionByHash"] < 3 * 17
