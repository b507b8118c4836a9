"""Commits of a store a second: tiny operations on one hot key, in process, every one durable.

Each operation reads two keys, sets two and appends one, as a debit does. The ceiling beside it is
what the disk alone gives: writes of one page, each synced. Wall-clock rates vary with the machine's
other work; the processor time for each operation varies little.

Run: python -m bench.store [URL]; without a URL, the embedded engine in a temporary directory.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import tempfile
import time
from functools import partial

import uvloop

from services.store.open import open_store
from services.store.port import Operation, Store, Transaction

SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
IN_FLIGHT = (1, 32, 200)


def debit(request: bytes, tx: Transaction) -> None:
    """What a debit does to the store."""
    tx.get(b"wallet")
    tx.get(request)
    tx.set(b"wallet", b"w" * 100)
    tx.set(request, b"r" * 100)
    tx.append(b"ledger/", b"e" * 120)


async def commits(store: Store, in_flight: int) -> tuple[float, float]:
    """Commits a second, and microseconds of processor time for each."""
    numbers = itertools.count(time.monotonic_ns())
    done = 0
    end = time.perf_counter() + SECONDS

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < end:
            request = b"request/%d" % next(numbers)
            await store.commit(Operation(partial(debit, request), "hot", (b"wallet", request)))
            done += 1

    started, processor = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    elapsed = time.perf_counter() - started
    return done / elapsed, (time.process_time() - processor) / done * 1e6


def synced_writes(directory: str) -> float:
    """Writes of a page a second, each synced before the next."""
    file = os.open(f"{directory}/page", os.O_CREAT | os.O_WRONLY)
    done, started = 0, time.perf_counter()
    while time.perf_counter() < started + SECONDS:
        os.pwrite(file, b"p" * 4096, done * 4096)
        os.fdatasync(file)
        done += 1
    os.close(file)
    return done / SECONDS


async def main() -> None:
    """Prints a line for each load."""
    with tempfile.TemporaryDirectory() as directory:
        url = sys.argv[1] if len(sys.argv) > 1 else f"lmdb://{directory}/store"
        print(f"synced writes of the disk {synced_writes(directory):10,.0f}/s")
        store = await open_store(url)
        for in_flight in IN_FLIGHT:
            rate, processor_us = await commits(store, in_flight)
            print(f"{in_flight:4} in flight {rate:21,.0f}/s {processor_us:8.1f} us processor time")
        await store.close()


if __name__ == "__main__":
    uvloop.run(main())
