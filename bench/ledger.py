"""What the credit service itself takes for a debit, without any server in front of it.

Every debit goes from a parsed ``DebitRequest`` through the servicer, the ledger and an LMDB store
to a ``DebitResponse``, each with a new request id and durably, with 1, 32 and 200 calls in flight
and in batches of 500, on one account and on 1,000:

    python -m bench.ledger [--debits 20000] [--directory /tmp/bench-ledger] [--profile FILE]

``loop`` is the CPU time of the event loop's thread, the store's part in it included; ``all`` adds
the thread that writes. ``--profile`` runs the 200 in flight on one account alone, under cProfile.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import itertools
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import uvloop
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.ledger import Ledger
from services.credits.records import FAMILY
from services.credits.servicer import CreditServicer
from services.credits.settings import DEFAULT_TARIFF
from services.credits.tariff import Tariff
from services.process.clock import now_us
from services.rpc.call import Call
from services.store.open import open_store
from services.store.requests import RequestRecords

BATCH = 500
DAY_S = 86_400
Work = Callable[[Iterator[pb.DebitRequest]], Awaitable[None]]


def main() -> None:
    """Prints a line a case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--debits", type=int, default=20_000)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--profile")
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="bench-ledger-"))
    try:
        uvloop.run(bench(directory, options.debits, options.profile))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def bench(directory: Path, debits: int, profile: str | None) -> None:
    """Measures every case on one store."""
    store = await open_store(f"lmdb://{directory}")
    tariff = Tariff({meter: price.rates() for meter, price in DEFAULT_TARIFF.items()})
    requests = RequestRecords(FAMILY, keep_s=DAY_S)
    ledger = Ledger(store, tariff, requests, keep_s=DAY_S, now_us=now_us)
    cases = Cases(CreditServicer(ledger))
    await cases.grant()
    if profile:
        with cProfile.Profile() as profiler:
            await measure("profiled", cases.unary(200), cases.requests(1, debits), debits)
        profiler.dump_stats(profile)
    else:
        for accounts in (1, 1000):
            name = f"{accounts:5} accounts"
            for flight in (1, 32, 200):
                few = debits // 5 if flight == 1 else debits
                requests_ = cases.requests(accounts, few)
                await measure(f"{name}, {flight:3} in flight", cases.unary(flight), requests_, few)
            batches = cases.requests(accounts, debits)
            await measure(f"{name}, batches of {BATCH}", cases.batches(), batches, debits)
    await store.close()


async def measure(name: str, work: Work, requests: list[pb.DebitRequest], debits: int) -> None:
    """Runs a case and prints what it took."""
    real_s, loop_s, all_s = time.perf_counter(), time.thread_time(), time.process_time()
    await work(iter(requests))
    real_s = time.perf_counter() - real_s
    loop_us = (time.thread_time() - loop_s) / debits * 1e6
    all_us = (time.process_time() - all_s) / debits * 1e6
    rate = f"{debits / real_s:9,.0f} debits/s"
    print(f"{name:32}{rate}, loop {loop_us:6.1f} us, all {all_us:6.1f} us")


class Cases:
    """Ways to send debits."""

    def __init__(self, servicer: CreditServicer) -> None:
        self._servicer = servicer
        self._numbers = itertools.count(1)

    async def grant(self) -> None:
        """Gives every account enough."""
        for number in range(1000):
            request = pb.GrantRequest(
                request_id=f"grant-{number}", account_id=f"account-{number:06}", amount=10**12
            )
            await self._servicer.Grant(request, Call("Grant"))

    def requests(self, accounts: int, count: int) -> list[pb.DebitRequest]:
        """New debits, over the accounts by turns."""
        return [
            pb.DebitRequest(
                request_id=f"debit-{next(self._numbers):012}",
                account_id=f"account-{index % accounts:06}",
                amount=1 + index % 100,
            )
            for index in range(count)
        ]

    def unary(self, flight: int) -> Work:
        """So many calls at once."""

        async def caller(requests: Iterator[pb.DebitRequest]) -> None:
            for request in requests:
                await self._servicer.Debit(request, Call("Debit"))

        async def work(requests: Iterator[pb.DebitRequest]) -> None:
            await asyncio.gather(*(caller(requests) for _ in range(flight)))

        return work

    def batches(self) -> Work:
        """Two calls at once with a batch each."""

        async def caller(requests: Iterator[pb.DebitRequest]) -> None:
            while batch := list(itertools.islice(requests, BATCH)):
                request = pb.BatchDebitRequest(debits=batch)
                await self._servicer.BatchDebit(request, Call("BatchDebit"))

        async def work(requests: Iterator[pb.DebitRequest]) -> None:
            await asyncio.gather(*(caller(requests) for _ in range(2)))

        return work


if __name__ == "__main__":
    main()
