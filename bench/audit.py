"""How fast an audit proves a large ledger, and what it says of a flipped byte.

Builds a ledger in process, in batches; runs ``tollmesh audit --store`` on its files; then flips one
byte of one entry, and one of one wallet, each in a copy, and shows what the audit reports:

    python -m bench.audit [--accounts 100000] [--entries 1000000] [--directory DIRECTORY]

The directory is made anew and removed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import uvloop
from tollmesh.credits.v1 import credits_pb2 as pb

from bench.growth import bytes_on_disk
from services.credits.account import wallet_key
from services.credits.ledger import Ledger
from services.credits.records import ENTRIES, FAMILY
from services.credits.servicer import CreditServicer
from services.credits.tariff import Tariff
from services.process.clock import now_us
from services.rpc.call import Call
from services.store.open import open_store
from services.store.requests import RequestRecords

BATCH = 500
IN_FLIGHT = 4
GRANTED = 10**9
DAY_S = 86_400
SEED = 1


def main() -> None:
    """Prints what it measures as it goes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="bench-audit-"))
    try:
        uvloop.run(fill(directory / "store", options.accounts, options.entries))
        size = bytes_on_disk(directory / "store") / options.entries
        print(f"{size:.0f} bytes on disk an entry, its request record and indexes included\n")
        audit(directory / "store")
        name = _account(options.accounts // 2)
        for kind, key in (("entry", ENTRIES.key(name, 2)), ("wallet", wallet_key(name))):
            show_damage(directory, kind, key)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def fill(directory: Path, accounts: int, entries: int) -> None:
    """A grant for each account, and debits over all of them until there are so many entries."""
    store = await open_store(f"lmdb://{directory}")
    requests = RequestRecords(FAMILY, keep_s=DAY_S)
    ledger = Ledger(store, Tariff({}), requests, keep_s=DAY_S, now_us=now_us)
    servicer = CreditServicer(ledger)
    began = time.perf_counter()
    grants = _grants(accounts)
    await asyncio.gather(*(_grant(servicer, grants) for _ in range(BATCH)))
    debits = _debits(accounts, entries - accounts)
    await asyncio.gather(*(_debit(servicer, debits) for _ in range(IN_FLIGHT)))
    await store.close()
    seconds = time.perf_counter() - began
    print(f"{entries:,} entries of {accounts:,} accounts, written in {seconds:.0f} s")


def audit(store: Path) -> None:
    """Runs the command, and prints what it prints."""
    command = [sys.executable, "-m", "services.cli", "audit", "--store", str(store)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(ended.stdout + ended.stderr, end="")
    print(f"exit status {ended.returncode}; {cpu_s:.1f} s of a core, all processes together\n")


def show_damage(directory: Path, kind: str, key: bytes) -> None:
    """Flips one byte of the record at a key in the files of a copy, and audits that."""
    copy = directory / "copy"
    shutil.copytree(directory / "store", copy)
    value = asyncio.run(_value(copy, key))
    at = Random(SEED).randrange(len(value))
    if not sum(flip(file, value, at) for file in copy.iterdir()):
        raise LookupError("the value stands in no file")
    print(f"One byte of one {kind} flipped in a copy:")
    audit(copy)
    shutil.rmtree(copy)


def flip(data: Path, value: bytes, at: int) -> int:
    """Changes one byte of a value wherever it stands in a file; says how often it does.

    That may be several times: a page is written elsewhere when it changes.
    """
    content = bytearray(data.read_bytes())
    place, count = content.find(value), 0
    while place >= 0:
        content[place + at] ^= 1
        count += 1
        place = content.find(value, place + 1)
    if count:
        data.write_bytes(content)
    return count


async def _value(directory: Path, key: bytes) -> bytes:
    store = await open_store(f"lmdb://{directory}")
    value = (await store.read(lambda tx: tx.get(key))).result
    await store.close()
    if value is None:
        raise LookupError(f"nothing stands at {key!r}")
    return value


async def _grant(servicer: CreditServicer, grants: Iterator[pb.GrantRequest]) -> None:
    for request in grants:
        await servicer.Grant(request, Call("Grant"))


async def _debit(servicer: CreditServicer, debits: Iterator[pb.DebitRequest]) -> None:
    while batch := list(itertools.islice(debits, BATCH)):
        await servicer.BatchDebit(pb.BatchDebitRequest(debits=batch), Call("BatchDebit"))


def _grants(accounts: int) -> Iterator[pb.GrantRequest]:
    for number in range(accounts):
        yield pb.GrantRequest(
            request_id=f"grant-{number:012}", account_id=_account(number), amount=GRANTED
        )


def _debits(accounts: int, count: int) -> Iterator[pb.DebitRequest]:
    dice = Random(SEED)
    for number in range(count):
        yield pb.DebitRequest(
            request_id=f"debit-{number:012}",
            account_id=_account(dice.randrange(accounts)),
            amount=1 + number % 100,
        )


def _account(number: int) -> str:
    return f"account-{number:06}"


if __name__ == "__main__":
    main()
