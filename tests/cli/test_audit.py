"""``tollmesh audit`` on a running service, and on the files of one that has stopped."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import lmdb
from tollmesh.client import AsyncCreditClient

from tests.support.service_process import ROOT, running

ACCOUNTS, DEBITS = 3, 20


async def _audit(*arguments: str | Path, target: str = "", status: int) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.cli",
        "audit",
        *map(str, arguments),
        cwd=ROOT,
        env={**os.environ, "TOLLMESH_CREDITS_TARGET": target},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == status, printed.decode()
    return printed.decode()


def _flip(directory: Path, account: str) -> None:
    """Changes a bit in the middle of an account's tenth entry."""
    with (
        lmdb.open(str(directory), map_size=1 << 30) as environment,
        environment.begin(write=True) as transaction,
    ):
        prefix = b"\x02c\x00\x02e\x00\x02" + account.encode() + b"\x00"
        key = prefix + b"\x15\x0a"
        value = transaction.get(key)
        assert value is not None
        at = len(value) // 2
        transaction.put(key, value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :])


async def test_a_ledger_is_audited_while_it_runs_and_as_files(tmp_path: Path) -> None:
    store = tmp_path / "a store"
    url = f"lmdb://{tmp_path}/a%20store"
    async with running("credits", {"store": url, "face": "grpcio"}, tmp_path) as service:
        async with AsyncCreditClient(service.address) as client:
            for number in range(ACCOUNTS):
                await client.grant(f"account-{number}", 1000)
                for _ in range(DEBITS):
                    await client.debit(f"account-{number}", 7)
        printed = await _audit(target=service.address, status=0)
        assert f"{ACCOUNTS} accounts and {ACCOUNTS * (DEBITS + 1)} entries" in printed
        assert "Everything is right" in printed
        one = await _audit("--account", "account-1", target=service.address, status=0)
        assert f"1 accounts and {DEBITS + 1} entries" in one
        in_use = await _audit("--store", store, status=2)
        assert "damaged or in use" in in_use
        await service.stop()
    unreachable = await _audit(target=service.address, status=2)
    assert "could not be checked" in unreachable
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    assert "Everything is right" in await _audit("--store", copy, status=0)
    _flip(copy, "account-1")
    found = await _audit("--store", copy, status=1)
    assert "account account-1, entry 000000000000000a" in found
    assert "Everything is right" in await _audit("--store", store, status=0)


async def test_what_is_no_store_is_not_made_one(tmp_path: Path) -> None:
    assert "no store" in await _audit("--store", tmp_path / "nothing", status=2)
    assert not (tmp_path / "nothing").exists()


async def test_files_that_cannot_be_opened_are_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"no store at all" * 1000)
    printed = await _audit("--store", tmp_path, status=2)
    assert "damaged or in use" in printed
