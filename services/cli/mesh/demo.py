"""The demo: the main job from start to end, and the arithmetic of the bill checked.

Prices are worked out here from the tariff alone, and compared with what the ledger says.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import secrets
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub

from services.chain.dag.builder import FileBuilder
from services.cli import output
from services.cli.connection import new_request_id
from services.cli.credit import ledger_table
from services.cli.failure import FAILED, CommandError
from services.cli.files import until
from services.cli.mesh.local_mesh import NETWORK, TARIFF, LocalMesh
from services.cli.mesh.tenant import Tenant, grant_once, make_tenant
from services.cli.transfer import Edge
from services.credits import errors as credits_errors
from services.rpc.client import connect

FILE_BYTES = 12 * 1024 * 1024
GRANTED = 1_000_000
RANGE = (1_000_000, 1_499_999)
ABORT_AFTER_BYTES = 256 * 1024
SETTLE_S = 30.0


async def run_demo() -> None:
    """Runs the demo on a mesh of its own. Raises CommandError when anything differs."""
    with tempfile.TemporaryDirectory(prefix="tollmesh-demo-") as directory:
        _step("Starting a local chain, the auth, credits and chain services, and two edges")
        async with LocalMesh(Path(directory)) as mesh:
            tenant = await _make_tenant(mesh)
            await _Demo(mesh, tenant, Path(directory) / "sample.bin").run()
    output.console.print("\n[bold green]Everything adds up.[/bold green]")


@dataclass
class _Demo:
    mesh: LocalMesh
    tenant: Tenant
    file: Path
    expected_spent: int = 0

    async def run(self) -> None:
        self.file.write_bytes(secrets.token_bytes(FILE_BYTES))
        first, second = (Edge(url, self.tenant.key) for url in self.mesh.edge_urls)
        cid = await self._publish(first)
        for edge in (first, second):
            await self._download(edge, cid, "miss")
        await self._download(first, cid, "hit")
        await self._range(second, cid)
        await self._abort(first, cid)
        await self._check_bill()

    async def _publish(self, edge: Edge) -> str:
        _step(f"Publishing {self.file.name} ({FILE_BYTES:,} bytes of fresh randomness)")
        with output.progress(quiet=False) as bar:
            task = bar.add_task("Uploading", total=FILE_BYTES)
            answer = await edge.upload(
                self.file,
                network=NETWORK,
                name=self.file.name,
                request_id=new_request_id(),
                advance=lambda count: bar.advance(task, count),
            )
        cid = str(answer["cid"])
        output.console.print(f"  CID {cid}", highlight=False, soft_wrap=True)
        _check("the CID is the one worked out from the file alone", cid, _cid(self.file))
        self.expected_spent += price("upload", "miss", FILE_BYTES)
        status = await until(edge, NETWORK, cid, "finalized")
        nodes = status["nodes_finalized"]
        _check("every node stands in a finalized block", nodes, status["nodes_total"])
        return cid

    async def _download(self, edge: Edge, cid: str, result: str) -> None:
        _step(f"Downloading through {edge.url} (a cache {result})")
        data = io.BytesIO()
        headers = await edge.download(
            f"/objects/{NETWORK}/{cid}", data, byte_range=None, advance=_silent
        )
        _check("the bytes are those of the file", _digest(data.getvalue()), self._file_digest())
        hit = "hit" in headers.get("cache-status", "").split(";")[1].strip()
        _check(f"Cache-Status says {result}", "hit" if hit else "miss", result)
        self.expected_spent += price("download", result, FILE_BYTES)

    async def _range(self, edge: Edge, cid: str) -> None:
        start, last = RANGE
        _step(f"Downloading bytes {start:,} to {last:,}")
        data = io.BytesIO()
        path = f"/objects/{NETWORK}/{cid}"
        await edge.download(path, data, byte_range=f"{start}-{last}", advance=_silent)
        with self.file.open("rb") as file:
            file.seek(start)
            wanted = file.read(last - start + 1)
        _check("the bytes are those of the range", _digest(data.getvalue()), _digest(wanted))
        self.expected_spent += price("download", "hit", len(wanted))

    async def _abort(self, edge: Edge, cid: str) -> None:
        _step(f"Breaking off a download after {ABORT_AFTER_BYTES:,} bytes")
        before = len(await self._entries())
        received = await _break_off(edge, f"/objects/{NETWORK}/{cid}")
        entry = await self._settled(before)
        sent = entry.metered.quantity
        output.console.print(f"  received {received:,}, sent {sent:,} of {FILE_BYTES:,} bytes")
        _check("paid for no less than was received", min(sent, received), received)
        _check("paid for less than the file", min(sent, FILE_BYTES - 1), sent)
        self.expected_spent += price("download", "hit", sent)

    async def _settled(self, before: int) -> pb.Entry:
        deadline = asyncio.get_running_loop().time() + SETTLE_S
        while asyncio.get_running_loop().time() < deadline:
            new = (await self._entries())[before:]
            captures = [entry for entry in new if entry.kind == pb.ENTRY_KIND_CAPTURE]
            if captures and new[-1].held_after == 0:
                return captures[-1]
            await asyncio.sleep(0.05)
        raise CommandError("the broken-off download was never captured", FAILED)

    async def _check_bill(self) -> None:
        _step("The bill")
        entries = await self._entries()
        ledger_table(entries)
        balance = await self._balance()
        output.console.print(
            f"  granted {balance.granted:,} = available {balance.available:,} + "
            f"held {balance.held:,} + spent {balance.spent:,} + expired {balance.expired:,} + "
            f"voided {balance.voided:,}"
        )
        taken = (pb.ENTRY_KIND_DEBIT, pb.ENTRY_KIND_CAPTURE)
        in_ledger = sum(entry.amount for entry in entries if entry.kind in taken)
        _check("spent is what the tariff gives", balance.spent, self.expected_spent)
        _check("the ledger's debits sum up to it", in_ledger, self.expected_spent)
        _check("nothing is held any more", balance.held, 0)
        _check("the rest is available", balance.available, GRANTED - self.expected_spent)

    async def _entries(self) -> list[pb.Entry]:
        request = pb.ListEntriesRequest(account_id=self.tenant.account_id, page_size=1000)
        async with connect(self._credits, errors=credits_errors.ERRORS) as channel:
            return list((await CreditServiceStub(channel).ListEntries(request)).entries)

    async def _balance(self) -> pb.Balance:
        request = pb.GetBalanceRequest(account_id=self.tenant.account_id)
        async with connect(self._credits, errors=credits_errors.ERRORS) as channel:
            return (await CreditServiceStub(channel).GetBalance(request)).balance

    @property
    def _credits(self) -> str:
        return self.mesh.addresses["credits"]

    def _file_digest(self) -> str:
        return _digest(self.file.read_bytes())


def price(meter: str, result: str, quantity: int) -> int:
    """What the local tariff takes for a quantity: ceil(quantity x rate)."""
    return ceil(quantity * Fraction(*(int(part) for part in TARIFF[meter][result].split("/"))))


async def _make_tenant(mesh: LocalMesh) -> Tenant:
    _step("Making an account and a key, granting credit")
    tenant = await make_tenant(mesh, "demo")
    output.console.print(f"  account {tenant.account_id}", highlight=False)
    for notice in tenant.notices:
        output.console.print(f"  note: {notice}", highlight=False)
    balance = await grant_once(mesh, tenant, GRANTED)
    _check("the balance is what was granted", balance.available, GRANTED)
    return tenant


class _EnoughError(Exception):
    """The reader has had enough."""


async def _break_off(edge: Edge, path: str) -> int:
    data = io.BytesIO()

    def stop(_: int) -> None:
        if data.tell() >= ABORT_AFTER_BYTES:
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        await edge.download(path, data, byte_range=None, advance=stop)
    return data.tell()


def _silent(_: int) -> None:
    """A download without a progress bar."""


def _cid(file: Path) -> str:
    builder = FileBuilder(file.name)
    with file.open("rb") as data:
        while chunk := data.read(1 << 20):
            for _ in builder.feed(chunk):
                pass  # only the names of the nodes matter here
    for _ in builder.finish():
        pass
    return str(builder.root)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _step(text: str) -> None:
    output.console.print(f"\n[bold]{text}[/bold]", highlight=False)


def _check(what: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise CommandError(f"the demo differs: {what}: got {actual}, expected {expected}", FAILED)
    shown = f"{actual:,}" if type(actual) is int else ""
    output.console.print(f"  [green]ok[/green] {what} {shown}".rstrip(), highlight=False)
