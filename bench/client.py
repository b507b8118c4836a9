"""The client library beside the credit service: one debit a call, at 1, 32 and 200 in flight.

The service has core 0, this process core 1. Prints debits a second, the calls of BatchDebit that
carried them, the client's processor time a debit, and latencies; the ledger must account for all.

Run: python -m bench.client [SECONDS]
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from tollmesh.client import AsyncCreditClient, Batching

from services.cli.mesh.processes import free_port, start, stop
from services.cli.output import table

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
IN_FLIGHT = (1, 32, 200)
WINDOW = int(os.environ.get("BENCH_WINDOW", str(Batching.window)))
ACCOUNTS = int(os.environ.get("BENCH_ACCOUNTS", "1"))


async def main() -> None:
    """Measures and prints."""
    os.sched_setaffinity(0, {1 % (os.cpu_count() or 1)})
    with tempfile.TemporaryDirectory(prefix="tollmesh-bench-") as directory:
        address = f"127.0.0.1:{free_port()}"
        environment = {
            "TOLLMESH_CREDITS_LISTEN": address,
            "TOLLMESH_CREDITS_STORE": f"lmdb://{directory}/store",
            "BENCH_CORE": "0",
        }
        (Path(directory) / "store").mkdir()
        command = [sys.executable, "-m", "bench.credit_server"]
        server = start("credits", command, Path(directory), environment)
        try:
            await server.listening(address)
            async with AsyncCreditClient(address, batching=Batching(window=WINDOW)) as client:
                await _measure(client)
        finally:
            await stop([server])


async def _measure(client: AsyncCreditClient) -> None:
    for number in range(ACCOUNTS):
        await client.grant(f"a{number}", 1 << 50)
    rows, made = [], 0
    for in_flight in IN_FLIGHT:
        row, count = await _run(client, in_flight)
        rows.append(row)
        made += count
    columns = ("in flight", "debits/s", "client CPU us", "p50 ms", "p99 ms")
    table(f"Client library, window {WINDOW}, {ACCOUNTS} accounts", columns, rows)
    spent = 0
    for number in range(ACCOUNTS):
        spent += (await client.balance(f"a{number}")).balance.spent
    assert spent == made, f"the ledger took {spent:,} debits, the client made {made:,}"


async def _run(client: AsyncCreditClient, in_flight: int) -> tuple[tuple[object, ...], int]:
    latencies: list[float] = []
    began, processor = time.perf_counter(), time.process_time()
    end = began + SECONDS

    async def caller(number: int) -> None:
        account = f"a{number % ACCOUNTS}"
        now = time.perf_counter()
        while now < end:
            before = now
            await client.debit(account, 1)
            now = time.perf_counter()
            latencies.append(now - before)

    await asyncio.gather(*(caller(number) for number in range(in_flight)))
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    latencies.sort()
    count = len(latencies)
    row = (
        in_flight,
        round(count / seconds),
        f"{1e6 * processor / count:.1f}",
        f"{1000 * latencies[count // 2]:.2f}",
        f"{1000 * latencies[count * 99 // 100]:.2f}",
    )
    return row, count


if __name__ == "__main__":
    asyncio.run(main())
