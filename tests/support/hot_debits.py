"""A process that debits one account as fast as it can.

``python -m tests.support.hot_debits URL NAME CALLERS`` says "ready", and begins when it is sent a
line. It says "enough" after TURNS commits and goes on until it is sent another line; then it says
how many debits were answered, and in how many commits.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from dataclasses import dataclass

from tollmesh.credits.v1 import credits_pb2 as pb

from services.process.clock import now_us
from services.store.open import open_store
from tests.support.credit_service import CreditService

ACCOUNT = "hot"
TURNS = 100
START_S = END_S = 60


@dataclass(frozen=True, slots=True)
class Done:
    """What a process did."""

    debits: int
    turns: int


class HotDebits:
    """Such a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def heard(self) -> str:
        """Waits for the next line."""
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            return (await self._process.stdout.readline()).decode().strip()

    def tell(self) -> None:
        """Lets it begin, or end."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def done(self) -> Done:
        """Lets it end, and waits for that."""
        self.tell()
        line = await self.heard()
        while line == "enough":
            line = await self.heard()
        assert await asyncio.wait_for(self._process.wait(), END_S) == 0
        debits, turns = line.split()
        return Done(int(debits), int(turns))

    def kill(self) -> None:
        """Ends it at once, if it still runs."""
        if self._process.returncode is None:
            self._process.kill()


async def start(url: str, name: str, callers: int) -> HotDebits:
    """Starts one on the store of a URL; it is ready."""
    command = [sys.executable, "-m", "tests.support.hot_debits", url, name, str(callers)]
    pipe = asyncio.subprocess.PIPE
    process = HotDebits(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))
    assert await process.heard() == "ready"
    return process


async def _main(url: str, name: str, callers: int) -> None:
    store = await open_store(url)
    credits = CreditService(store, now_us).direct
    numbers = itertools.count()
    versions: set[str] = set()
    debits = 0
    print("ready", flush=True)  # noqa: T201 (what the parent waits for)
    await asyncio.to_thread(sys.stdin.readline)
    told = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))

    async def caller() -> None:
        nonlocal debits
        while not told.done():
            request_id = f"{name}-{next(numbers)}"
            request = pb.DebitRequest(request_id=request_id, account_id=ACCOUNT, amount=1)
            answer = await credits.Debit(request)
            debits += 1
            if answer.version not in versions:
                versions.add(answer.version)
                if len(versions) == TURNS:
                    print("enough", flush=True)  # noqa: T201 (as above)

    await asyncio.gather(*(caller() for _ in range(callers)))
    await store.close()
    print(debits, len(versions), flush=True)  # noqa: T201 (as above)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
