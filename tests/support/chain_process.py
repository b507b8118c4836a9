"""The fake chain as a process of its own, with objects made from a seed.

``python -m tests.support.chain_process``; settings by TOLLMESH_CHAIN_LISTEN, READY_FILE, SEED and
SIZES (a JSON list of the objects' sizes).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

from tests.support.fake_chain import FakeChain, cid_of, running_fake_chain


def made_objects(seed: int, sizes: Sequence[int]) -> dict[str, bytes]:
    """The objects of a seed, by CID."""
    dice = random.Random(seed)
    return {cid_of(data): data for data in map(dice.randbytes, sizes)}


async def _serve() -> None:
    chain = FakeChain()
    sizes = json.loads(os.environ["TOLLMESH_CHAIN_SIZES"])
    for data in made_objects(int(os.environ["TOLLMESH_CHAIN_SEED"]), sizes).values():
        chain.add(data)
    ready_file = Path(os.environ["TOLLMESH_CHAIN_READY_FILE"])
    async with running_fake_chain(chain, os.environ["TOLLMESH_CHAIN_LISTEN"]) as address:
        await asyncio.to_thread(ready_file.write_text, address)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
