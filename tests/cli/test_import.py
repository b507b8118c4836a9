"""``tollmesh import`` against a real auth service and a real credit service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tollmesh.auth.v1 import auth_pb2
from tollmesh.auth.v1.auth_pb2_grpc import AccountServiceStub, AuthServiceStub
from tollmesh.client import AsyncCreditClient

from services.rpc.client import connect
from tests.support.deadline import DEADLINE_S
from tests.support.service_process import running

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "docs/import.md").read_text().split("```jsonl\n")[1].partition("```")[0]


@dataclass
class Mesh:
    """Two services and the command line that knows them."""

    home: Path
    auth: str
    credits: str

    async def start(self, *arguments: str | Path) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.cli",
            "import",
            *map(str, arguments),
            cwd=ROOT,
            env={
                **os.environ,
                "TOLLMESH_HOME": str(self.home),
                "TOLLMESH_AUTH_TARGET": self.auth,
                "TOLLMESH_CREDITS_TARGET": self.credits,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def run(self, *arguments: str | Path, status: int = 0) -> dict[str, Any]:
        report = self.home / "report.json"
        process = await self.start(*arguments, "--report", report)
        printed, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == status, printed.decode()
        found: dict[str, Any] = json.loads(report.read_text())
        return found

    async def accounts(self) -> list[str]:
        async with connect(self.auth) as channel:
            request = auth_pb2.ListAccountsRequest(page_size=1000)
            page = await AccountServiceStub(channel).ListAccounts(request)
        return [account.account_id for account in page.accounts]

    async def available(self, account: str, currency: str) -> int:
        async with AsyncCreditClient(self.credits) as client:
            return (await client.balance(account, currency=currency)).balance.available

    async def authorized(self, credential: str) -> str:
        async with connect(self.auth) as channel:
            request = auth_pb2.AuthorizeRequest(
                credential=credential, action=auth_pb2.ACTION_DOWNLOAD
            )
            return (await AuthServiceStub(channel).Authorize(request)).account_id


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    pepper = tmp_path / "pepper"
    pepper.touch(mode=0o600)
    pepper.write_text("p" * 40)
    for name in ("auth", "credits"):
        (tmp_path / name).mkdir()
    auth = {"store": f"lmdb://{tmp_path}/auth", "peppers": json.dumps({"1": str(pepper)})}
    credits = {"store": f"lmdb://{tmp_path}/credits"}
    async with (
        running("auth", auth, tmp_path) as auth_service,
        running("credits", credits, tmp_path) as credit_service,
    ):
        yield Mesh(tmp_path, auth_service.address, credit_service.address)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "export.jsonl"
    path.write_text(EXAMPLE)
    return path


async def test_the_example_of_the_docs_is_imported_once(mesh: Mesh, example: Path) -> None:
    keys = mesh.home / "keys"
    first = await mesh.run(example, "--keys-out", keys)
    expected = {"created account": 1, "created api_key": 2, "created grant": 2, "expired grant": 1}
    assert first["counts"] == expected
    assert first["sums"]["created download-byte"] == 5368709120
    assert first["sums"]["expired download-byte"] == 1000
    assert keys.stat().st_mode & 0o777 == 0o600
    again = await mesh.run(example, "--keys-out", keys)
    assert again["counts"] == {
        "already there account": 1,
        "already there api_key": 2,
        "already there grant": 2,
        "expired grant": 1,
    }
    (account,) = await mesh.accounts()
    assert await mesh.available(account, "upload-byte") == 1073741824
    assert await mesh.available(account, "download-byte") == 5368709120
    assert await mesh.authorized("8d1f0c52a7734be1a9be") == account
    (line,) = keys.read_text().splitlines()
    assert await mesh.authorized(json.loads(line)["credential"]) == account


async def test_a_dry_run_changes_nothing(mesh: Mesh, example: Path) -> None:
    report = await mesh.run(example, "--dry-run", "--keys-out", mesh.home / "keys")
    assert report["sums"]["would create upload-byte"] == 1073741824
    assert await mesh.accounts() == []
    assert not (mesh.home / "keys").exists()


async def test_a_changed_row_is_a_conflict_and_is_not_applied(mesh: Mesh, example: Path) -> None:
    keys = mesh.home / "keys"
    await mesh.run(example, "--keys-out", keys)
    example.write_text(EXAMPLE.replace("1073741824", "1073741825"))  # noqa: ASYNC240 (nothing else runs)
    report = await mesh.run(example, "--keys-out", keys, status=1)
    assert report["counts"]["conflict grant"] == 1
    assert [problem["id"] for problem in report["problems"]] == ["batch-1"]
    assert await mesh.available((await mesh.accounts())[0], "upload-byte") == 1073741824


async def test_bad_rows_are_named_and_nothing_is_imported_beside_them(mesh: Mesh) -> None:
    file = mesh.home / "bad.csv"
    file.write_text(
        "type,id,account,currency,amount,expires\n"
        "grant,g1,org,upload-byte,10,2099-01-01\n"
        "grant,g2,org,upload-byte,1.5,2099-01-01\n"
        "grant,g1,org,upload-byte,10,2099-01-01\n"
        "grant,g3,org,Bytes,10,\n"
        "gift,g4,org,,10,\n"
        "grant,g5,org,upload-byte,10,tomorrow\n"
    )
    report = await mesh.run(file, status=2)
    assert [(row["line"], row["field"]) for row in report["bad_rows"]] == [
        (3, "amount"),
        (4, "id"),
        (5, "currency"),
        (6, "type"),
        (7, "expires"),
    ]
    assert await mesh.accounts() == []
    report = await mesh.run(file, "--skip-bad")
    assert report["counts"] == {"created grant": 1}


async def test_an_import_that_died_is_repeated_and_nothing_is_there_twice(mesh: Mesh) -> None:
    file = mesh.home / "large.jsonl"
    rows = [
        {"type": "grant", "id": f"g{n}", "account": f"org-{n % 7}", "amount": 3}
        for n in range(3000)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(text)
    process = await mesh.start(file)
    async with asyncio.timeout(DEADLINE_S):
        while not await mesh.accounts():  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    report = await mesh.run(file)
    counts = report["counts"]
    assert counts.get("created grant", 0) + counts.get("already there grant", 0) == 3000
    assert counts["created grant"]
    accounts = await mesh.accounts()
    assert len(accounts) == 7
    assert sum([await mesh.available(account, "credit") for account in accounts]) == 9000
