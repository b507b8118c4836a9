"""An edge killed again and again under load: right bytes only, and every byte paid once."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.edge.conftest import Tenant, World, object_path
from tests.support.ledger_audit import audit_account
from tests.support.service_process import ServiceProcess, running

MEBIBYTE = 1024 * 1024
READERS = 12
SLICE_BYTES = 256 * 1024
"""What may have left between two notes of the journal."""
IN_FLIGHT_BYTES = 1024 * 1024
"""What two kernels and a client may hold of a connection that ends."""


@dataclass
class _Bill:
    """What an account received, and so must have paid: at least and at most."""

    tenant: Tenant
    received: int = 0
    least: int = 0
    most: int = 0
    whole: int = 0
    broken: int = 0

    def note(self, length: int, received: int) -> None:
        """A download of so many bytes ended with so many received."""
        self.received += received
        if received == length:
            self.whole += 1
            self.least += length
            self.most += length
        else:
            self.broken += 1
            self.least += max(0, received - SLICE_BYTES)
            self.most += min(length, received + IN_FLIGHT_BYTES)


@dataclass
class _Load:
    """Readers that go on whatever happens to the edge."""

    world: World
    objects: Mapping[str, bytes]
    bills: list[_Bill]
    dice: random.Random
    process: ServiceProcess | None = None
    downloads: int = 0
    ended: bool = False
    up: asyncio.Event = field(default_factory=asyncio.Event)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    async def reader(self, bill: _Bill) -> None:
        """Reads until the end of the test; every byte must be right."""
        while not self.ended:
            await self.up.wait()
            process = self.process
            assert process is not None
            try:
                async with aiohttp.ClientSession(f"http://{process.address}") as session:
                    while self.process is process and not self.ended:
                        await self._download(session, bill)
            except aiohttp.ClientConnectionError:
                if self.process is process:
                    self.up.clear()  # it was killed; wait for the next one

    async def _download(self, session: aiohttp.ClientSession, bill: _Bill) -> None:
        cid = self.dice.choice(list(self.objects))
        data, headers = self.objects[cid], dict(bill.tenant.headers)
        if self.dice.random() < 0.3:
            first = self.dice.randrange(len(data))
            headers["Range"] = f"bytes={first}-"
            data = data[first:]
        received = bytearray()
        answered = False
        try:
            async with session.get(object_path(cid), headers=headers) as response:
                answered = response.status in {200, 206}
                assert answered or response.status in {429, 503}, await response.text()
                async for chunk in response.content.iter_any():
                    received += chunk
        except aiohttp.ClientPayloadError:
            pass  # killed amid the body
        finally:
            self.downloads += 1
            self.grown.set()
            if answered:
                assert data.startswith(received), f"corrupt: {cid}"
                bill.note(len(data), len(received))
            else:
                # It may have been paid for, or not: nobody saw the answer's head.
                bill.most += min(len(data), IN_FLIGHT_BYTES)

    async def until(self, more: int) -> None:
        """Waits until so many more downloads have ended."""
        wanted = self.downloads + more
        while self.downloads < wanted:
            self.grown.clear()
            await self.grown.wait()


@pytest.mark.timeout(600)  # make chaos-edge starts it fifty times
async def test_a_killed_edge_serves_no_wrong_byte_and_bills_each_byte_once(
    world: World, dice: random.Random, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    kills = int(pytestconfig.getoption("--edge-kills"))
    sizes = [dice.randrange(1, 700_000) for _ in range(24)]
    objects = {world.chain.add(data): data for data in map(dice.randbytes, sizes)}
    leases = {"lease_credits": 1_000_000, "lease_settle_s": 0.1}
    known = world.settings(disk_bytes=5 * MEBIBYTE, pin_bytes=0, memory_bytes=MEBIBYTE, **leases)
    settings = {name: str(value) for name, value in known.model_dump(exclude_unset=True).items()}
    bills = [_Bill(await world.tenant()) for _ in range(READERS // 2)]
    load = _Load(world, objects, bills, dice)
    async with asyncio.TaskGroup() as readers:
        reading = [
            readers.create_task(load.reader(bills[number % len(bills)]))
            for number in range(READERS)
        ]
        for _ in range(kills):
            async with running("edge", settings, tmp_path) as process:
                load.process = process
                load.up.set()
                await load.until(dice.randrange(1, 100))
                await asyncio.sleep(dice.random() * 0.05)
                load.up.clear()
                assert await process.stop(signal.SIGKILL) == -signal.SIGKILL
        async with running("edge", settings, tmp_path) as process:
            load.process = process
            load.up.set()
            await load.until(50)
            load.ended = True
            await asyncio.gather(*reading)
            assert await process.stop() == 0
    await _account_for(load, kills)


async def _account_for(load: _Load, kills: int) -> None:
    """The books are in order, nothing is held, and captured is what was received."""
    received = captured = leased = 0
    for bill in load.bills:
        audit = await audit_account(load.world.credits, bill.tenant.account_id, until_settled=True)
        paid = audit.usage_quantity("download")
        assert bill.least <= paid <= bill.most, bill
        balance = audit.balance
        assert balance.granted == balance.available + balance.spent
        received, captured = received + bill.received, captured + paid
        leased += sum(entry.count for entry in audit.captures)
    whole, broken = sum(bill.whole for bill in load.bills), sum(bill.broken for bill in load.bills)
    print(  # noqa: T201 (figures)
        f"{kills} kills, {whole:,} whole and {broken:,} broken downloads, {received:,} bytes "
        f"received, {captured:,} captured, {leased:,} out of leases"
    )
    assert leased, "no delivery was ever paid out of a lease"
    assert broken, "no download was ever cut off: the kills came at the wrong time"
