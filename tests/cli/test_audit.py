"""``tollmesh audit`` on a running service, and on the files of one that has stopped."""

from __future__ import annotations

import asyncio
import os
import pty
import random
import re
import shutil
import sys
from pathlib import Path

import lmdb
import pytest
from tollmesh.client import AsyncCreditClient

from services.credits.records import (
    ACCOUNTS,
    AGENDA,
    ENTRIES,
    FAMILY,
    GRANTS,
    HOLDS,
    is_wallet,
)
from services.store.keys import Subspace
from services.store.open import open_store
from tests.support.seeds import chosen_seed
from tests.support.service_process import ROOT, running

OWNERS, DEBITS = 3, 20


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
            for number in range(OWNERS):
                await client.grant(f"account-{number}", 1000)
                for _ in range(DEBITS):
                    await client.debit(f"account-{number}", 7)
        printed = await _audit(target=service.address, status=0)
        assert f"{OWNERS} accounts and {OWNERS * (DEBITS + 1)} entries" in printed
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


KINDS = {
    "place in the list of accounts": ACCOUNTS,
    "wallet": ENTRIES,
    "entry": ENTRIES,
    "grant": GRANTS,
    "hold": HOLDS,
    "place in the agenda": AGENDA,
    "request": Subspace(FAMILY, "r"),
}


@pytest.fixture
async def files(tmp_path: Path) -> Path:
    """The files of a service that was stopped."""
    store = tmp_path / "store"
    async with running("credits", {"store": f"lmdb://{store}", "face": "grpcio"}, tmp_path) as run:
        async with AsyncCreditClient(run.address) as client:
            for number in range(OWNERS):
                await client.grant(f"account-{number}", 1000)
                await client.reserve(f"account-{number}", 5, time_to_live_s=3600)
                for _ in range(DEBITS):
                    await client.debit(f"account-{number}", 7)
        await run.stop()
    return store


async def test_a_flipped_byte_in_the_files_is_reported_with_its_record(
    files: Path, tmp_path: Path
) -> None:
    seed = chosen_seed()
    dice = random.Random(seed)
    assert "Everything is right" in await _audit("--store", files, status=0)
    for kind, section in KINDS.items():
        copy = tmp_path / "copy"
        shutil.copytree(files, copy)
        pairs = await _records(copy, section)
        if section is ENTRIES:
            pairs = [pair for pair in pairs if is_wallet(pair[0]) == (kind == "wallet")]
        key, value = dice.choice(pairs)
        _flip_in_files(copy, value, dice.randrange(len(value)))
        found = await _audit("--store", copy, status=1)
        if kind == "entry":
            _, number = ENTRIES.parts(key)
            assert f"entry {int(number):016x}" in found
        else:
            assert f"the record of a {kind} is damaged" in found.replace("\n", " ")
        if kind != "request":
            (name,) = re.findall(rb"account-\d", key)
            assert f"account {name.decode()}" in found
        shutil.rmtree(copy)


async def test_a_terminal_shows_how_far_an_audit_has_come(files: Path) -> None:
    terminal, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "audit", "--store", str(files)),
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm"},
        stdout=asyncio.subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    printed, _ = await asyncio.wait_for(process.communicate(), 60)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert "entries/s" in shown
    assert f"{OWNERS} accounts and {OWNERS * (DEBITS + 2)} entries" in printed.decode()


async def _records(store: Path, section: Subspace) -> list[tuple[bytes, bytes]]:
    opened = await open_store(f"lmdb://{store}")
    bounds = section.prefix, section.prefix + b"\xff"
    found = (await opened.read(lambda tx: tx.range(*bounds))).result
    await opened.close()
    return found


def _flip_in_files(store: Path, value: bytes, at: int) -> None:
    """Changes a byte of a value wherever it stands: a page that changes is written elsewhere."""
    count = 0
    for file in store.iterdir():
        content = bytearray(file.read_bytes())
        place = content.find(value)
        while place >= 0:
            content[place + at] ^= 1
            count += 1
            place = content.find(value, place + 1)
        file.write_bytes(content)
    assert count
