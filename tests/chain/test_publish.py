from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tollmesh.chain.v1 import chain_pb2 as pb

from tests.support.anvil import Anvil
from tests.support.chain_service import (
    INBOX,
    chain_settings,
    running_chain_service,
    until,
)

SIZE = 700_000


async def test_a_file_is_published_read_back_and_called_final_when_its_blocks_are(
    tmp_path: Path, anvil: Anvil
) -> None:
    data = random.Random(1).randbytes(SIZE)
    async with running_chain_service(chain_settings(tmp_path, anvil.url)) as chain:
        answer = await chain.publish(data, "photo.png")
        cid = answer.cid
        assert answer.publication.state == pb.PUBLICATION_STATE_PENDING
        assert answer.publication.nodes_total == 12
        early, got = await chain.read(cid)
        assert (early.finality, got) == (pb.FINALITY_UNSPECIFIED, data)
        await chain.until_state(cid, pb.PUBLICATION_STATE_PUBLISHED, anvil.mine)
        info, got = await chain.read(cid)
        assert got == data
        assert (info.size_bytes, info.name, info.media_type) == (SIZE, "photo.png", "image/png")
        final = await chain.until_state(cid, pb.PUBLICATION_STATE_FINALIZED, anvil.mine)
        assert (final.nodes_published, final.nodes_finalized) == (12, 12)
        assert (await chain.stat(cid)).finality == pb.FINALITY_FINALIZED
        spool = tmp_path / "spool" / "evm-local"
        await until(
            lambda: asyncio.to_thread(lambda: list(spool.glob("*.pack"))), lambda x: not x, "empty"
        )
        assert (await chain.read(cid, 65_000, 100_000))[1] == data[65_000:165_000]
    assert len(await anvil.calldata_to(INBOX)) == 12
