"""The process killed while it publishes: nothing is lost, nothing goes out twice for nothing."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tollmesh.chain.v1 import chain_pb2 as pb

from services.chain.errors import ERRORS
from services.rpc.client import connect
from services.rpc.errors import DependencyUnavailableError
from tests.support.anvil import Anvil
from tests.support.chain_service import INBOX, ChainClient, chain_settings
from tests.support.seeds import chosen_seed
from tests.support.service_process import ServiceProcess, running

SIZE = 1_600_000
NODES = 26
KILLS = 6


def environment(settings: dict[str, Any]) -> dict[str, str]:
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in settings.items()}


@asynccontextmanager
async def service(
    directory: Path, settings: dict[str, Any]
) -> AsyncIterator[tuple[ServiceProcess, ChainClient]]:
    async with (
        running("chain", environment(settings), directory) as process,
        connect(process.address, errors=ERRORS) as channel,
    ):
        yield process, ChainClient(channel)


async def upload_and_kill(
    chain: ChainClient, process: ServiceProcess, data: bytes, after_s: float
) -> str | None:
    """The CID, if the process lived long enough to answer."""
    publishing = asyncio.create_task(chain.publish(data))
    await asyncio.sleep(after_s)
    await process.stop(signal.SIGKILL)
    try:
        return (await publishing).cid
    except DependencyUnavailableError:
        return None


async def mine_until(anvil: Anvil, after_s: float) -> None:
    async with asyncio.timeout(after_s):
        while True:
            await anvil.mine_pending()
            await asyncio.sleep(0.01)


async def test_a_publication_survives_sigkill_at_any_point(tmp_path: Path, anvil: Anvil) -> None:
    rng = random.Random(chosen_seed())
    data = rng.randbytes(SIZE)
    settings = chain_settings(tmp_path, anvil.url, transactions_in_flight=4)
    acknowledged = None
    for _ in range(KILLS):
        async with service(tmp_path, settings) as (process, chain):
            if acknowledged is None:
                acknowledged = await upload_and_kill(chain, process, data, rng.uniform(0, 0.1))
                continue
            try:
                await mine_until(anvil, rng.uniform(0.05, 0.5))
            except TimeoutError:
                await process.stop(signal.SIGKILL)
    async with service(tmp_path, settings) as (process, chain):
        answer = await chain.publish(data)
        assert acknowledged in {None, answer.cid}
        assert answer.replayed or acknowledged is None
        final = await chain.until_state(answer.cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
        assert final.nodes_total == NODES
        assert (await chain.read(answer.cid))[1] == data
        assert await process.stop() == 0
    nodes = await anvil.calldata_to(INBOX)
    assert len(nodes) == len(set(nodes)) == NODES


async def test_an_acknowledged_file_needs_no_second_upload(tmp_path: Path, anvil: Anvil) -> None:
    data = random.Random(6).randbytes(200_000)
    settings = chain_settings(tmp_path, anvil.url)
    async with service(tmp_path, settings) as (process, chain):
        cid = (await chain.publish(data)).cid
        await process.stop(signal.SIGKILL)
    async with service(tmp_path, settings) as (_, chain):
        await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
        assert (await chain.read(cid))[1] == data
