"""A real development chain (anvil), started on a free port and stopped before the test ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.deadline import DEADLINE_S

PACKAGES = Path(__file__).parents[2] / "deploy/node/node_modules/@foundry-rs"
# The program itself, not the script before it: a script that is ended leaves it behind.
PROGRAM = next(PACKAGES.glob("anvil-*/bin/anvil"), PACKAGES / "anvil")
CHAIN_ID = 31337
# The first account that anvil funds, the same on every machine; worth nothing anywhere.
FUNDED_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
FUNDED_ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
OTHER_FUNDED_ADDRESS = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


class AnvilMissingError(Exception):
    """The program is not installed."""


@dataclass(frozen=True)
class Anvil:
    """A running chain."""

    url: str

    async def rpc(self, method: str, *params: object) -> Any:  # noqa: ANN401 (any JSON)
        """The result of a call; an assertion fails when it is refused."""
        return await asyncio.to_thread(self._post, method, params)

    async def mine(self, blocks: int = 1) -> None:
        """Makes blocks at once."""
        for _ in range(blocks):
            await self.rpc("evm_mine")

    async def mine_pending(self) -> None:
        """Makes a block when transactions wait for one."""
        if int((await self.rpc("txpool_status"))["pending"], 16):
            await self.mine()

    async def reorg(self, depth: int) -> None:
        """Replaces the last blocks by as many empty ones; their transactions are lost."""
        await self.rpc("anvil_reorg", depth, [])

    async def height(self) -> int:
        """The newest block's number."""
        return int(await self.rpc("eth_blockNumber"), 16)

    async def calldata_to(self, address: str) -> list[bytes]:
        """The calldata of every transaction to an address on the chain now, in its order."""
        found = []
        for number in range(await self.height() + 1):
            block = await self.rpc("eth_getBlockByNumber", hex(number), True)
            found += [
                bytes.fromhex(transaction["input"][2:])
                for transaction in block["transactions"]
                if (transaction["to"] or "").lower() == address.lower()
            ]
        return found

    def _post(self, method: str, params: tuple[object, ...]) -> Any:  # noqa: ANN401 (any JSON)
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        request = urllib.request.Request(  # noqa: S310 (our own chain)
            self.url, body.encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:  # noqa: S310 (our own chain)
            answer = json.load(response)
        assert "error" not in answer, answer
        return answer.get("result")


@asynccontextmanager
async def running_anvil(directory: Path, *options: str, port: int = 0) -> AsyncIterator[Anvil]:
    """Starts a chain and waits until it listens. ``options`` are anvil's own.

    ``--no-mining``: blocks come by ``mine`` alone. ``--slots-in-an-epoch 4``: the safe block is
    4, the finalized one 8 behind the newest.

    Raises ``AnvilMissingError``.
    """
    if not PROGRAM.exists():
        raise AnvilMissingError(f"{PROGRAM} is missing: run 'make test' once, which installs it")
    log_file = directory / f"anvil-{os.urandom(4).hex()}.log"
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(str(PROGRAM), "--host", "127.0.0.1", "--port", str(port), *options),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log.fileno(),
            stderr=log.fileno(),
        )
    try:
        yield Anvil(f"http://{await _listening(process, log_file)}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _listening(process: asyncio.subprocess.Process, log_file: Path) -> str:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            log = await asyncio.to_thread(log_file.read_text)
            if found := re.search(r"Listening on (127\.0\.0\.1:\d+)", log):
                return found[1]
            assert process.returncode is None, f"anvil ended:\n{log[-2000:]}"
            await asyncio.sleep(0.02)
