"""``tollmesh export`` against a real credit service."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tollmesh.client import AsyncCreditClient
from tollmesh.credits.v1 import ledger_pb2 as pb
from tollmesh.credits.v1.ledger_pb2_grpc import LedgerServiceStub

from services.cli import export, failure
from services.credits.errors import ERRORS, STORE_ERRORS
from services.credits.ledger_servicer import LedgerServicer
from services.rpc.client import connect
from services.rpc.errors import PageTokenInvalidError, ShuttingDownError
from services.rpc.server import Server
from services.store.open import open_store
from tests.support.credit_service import Account, Clock, CreditService
from tests.support.service_process import running


async def _run(target: str, *arguments: str | Path, status: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "export", *map(str, arguments)),
        env={**os.environ, "TOLLMESH_CREDITS_TARGET": target, "COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, complaint = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == status, complaint.decode()
    return printed.decode()


async def test_the_ledger_is_written_as_asked(tmp_path: Path) -> None:
    settings = {"store": f"lmdb://{tmp_path}/store"}
    async with running("credits", settings, tmp_path) as service:
        async with AsyncCreditClient(service.address) as client:
            for account in ("ada", "bob", "bob"):
                await client.grant(account, 5)
        target = service.address
        lines = (await _run(target)).splitlines()
        assert [json.loads(line)["accountId"] for line in lines] == ["ada", "bob", "bob"]
        table = tmp_path / "ledger.csv"
        assert "2 entries" in await _run(target, "--account", "bob", "-o", table)
        with table.open(newline="") as file:
            assert [row["account_id"] for row in csv.DictReader(file)] == ["bob", "bob"]
        assert (await _run(target, "--account", "ada", "--format", "csv")).count("\n") == 2
        assert await _run(target, "--from", "2099-01-01", "--format", "jsonl") == ""
        assert await _run(target, "--to", "2001-01-01", "-o", "-") == ""
        assert len((await _run(target, "--from", "2001-01-01")).splitlines()) == 3
        await _run(target, "--from", "soon", status=failure.MISUSED)
    assert not table.with_name("ledger.csv.partial").exists()


def _server(servicer: LedgerServicer) -> Server:
    return Server(listen="127.0.0.1:0", servicers=[servicer], translate=STORE_ERRORS, drain_s=1)


class Breaking(LedgerServicer):
    """Ends each stream behind so many ``parts``, ``breaks`` times."""

    breaks = 0
    parts = 2

    async def ExportEntries(  # noqa: N802 (the contract's name)
        self, request: pb.ExportEntriesRequest, context: object
    ) -> AsyncIterator[pb.ExportEntriesResponse]:
        sent = 0
        async for part in super().ExportEntries(request, context):
            if self.breaks and sent == self.parts:
                self.breaks -= 1
                raise ShuttingDownError
            yield part
            sent += 1


async def test_a_broken_stream_is_taken_up_where_it_broke(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.credits.export.PART", 3)
    store = await open_store("simulated:?faults=none")
    service = CreditService(store, Clock())
    for _ in range(20):
        await Account(service.direct, "bob").grant(1)
    servicer = Breaking(service.ledger, store)
    async with (
        _server(servicer) as server,
        connect(server.address, errors=ERRORS) as channel,
    ):
        stub = LedgerServiceStub(channel)
        for name in ("CSV", "JSON_LINES"):
            request = pb.ExportEntriesRequest(format=pb.ExportFormat.Value(f"EXPORT_FORMAT_{name}"))
            whole, mended = bytearray(), bytearray()
            assert await export.exported(stub, request, whole.extend) == 20
            servicer.breaks = 3
            assert await export.exported(stub, request, mended.extend, rest_s=0.001) == 20
            assert servicer.breaks == 0
            assert mended == whole
        wrong = pb.ExportEntriesRequest(cursor="of another export")
        with pytest.raises(PageTokenInvalidError):
            await export.exported(stub, wrong, bytearray().extend)
    await store.close()


async def test_a_service_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TRIES", 3)
    store = await open_store("simulated:?faults=none")
    service = CreditService(store, Clock())
    await Account(service.direct, "bob").grant(1)
    servicer = Breaking(service.ledger, store)
    servicer.breaks, servicer.parts = 10, 0
    request = pb.ExportEntriesRequest()
    async with (
        _server(servicer) as server,
        connect(server.address, errors=ERRORS) as channel,
    ):
        with pytest.raises(ShuttingDownError):
            await export.exported(LedgerServiceStub(channel), request, print, rest_s=0.001)
    assert servicer.breaks == 7
    await store.close()
