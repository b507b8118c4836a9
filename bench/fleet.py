"""Client processes that all begin at once: many callers on one machine."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import NamedTuple

from bench.http2_load import Driver
from bench.load import BATCH_DEBIT, DEBIT, Load

START_S = 120.0


@dataclass(frozen=True, slots=True)
class Job:
    """What one client process sends."""

    address: str
    accounts: int
    """Debits of the hot account (0), or of so many."""
    in_flight: int
    seconds: float
    batch: int = 0
    """Debits in a call; 0: Debit, one a call."""


class Share(NamedTuple):
    """What one client process got done."""

    address: str
    debits: int
    seconds: float
    latencies_s: list[float]


@dataclass(frozen=True, slots=True)
class Totals:
    """What all got done together."""

    shares: Sequence[Share]

    @property
    def debits(self) -> int:
        """Answered debits."""
        return sum(share.debits for share in self.shares)

    @property
    def rate(self) -> float:
        """Debits a second, until the last client had its last answer."""
        return self.debits / max(share.seconds for share in self.shares)

    def percentile_ms(self, percent: int) -> float:
        """The latency that this share of the calls kept under, in milliseconds."""
        ordered = sorted(itertools.chain.from_iterable(share.latencies_s for share in self.shares))
        return 1000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]

    def of(self, address: str) -> int:
        """The debits that one service answered."""
        return sum(share.debits for share in self.shares if share.address == address)


class Fleet:
    """So many client processes, kept from one measurement to the next."""

    def __init__(self, clients: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.clients = clients
        self._pool = ProcessPoolExecutor(
            clients, context, initializer=_begin_together, initargs=(context.Barrier(clients),)
        )

    def run(self, jobs: Sequence[Job]) -> Totals:
        """Gives each process one of the jobs. Raises ConnectionError as the driver does."""
        assert len(jobs) == self.clients, "each process has one job, and waits for the others"
        return Totals(list(self._pool.map(_done, jobs)))

    def close(self) -> None:
        """Ends the processes."""
        self._pool.shutdown()


_together: list[Barrier] = []


def _begin_together(barrier: Barrier) -> None:
    """In a new client process."""
    _together.append(barrier)


def _done(job: Job) -> Share:
    """In a client process; the barrier also sees to it that none takes a second job."""
    load = Load()
    each = job.batch or 1
    messages = load.batches(job.accounts, each) if job.batch else load.unary(job.accounts)
    method = BATCH_DEBIT if job.batch else DEBIT
    with closing(Driver(job.address)) as driver:
        _together[0].wait(START_S)
        begin = time.perf_counter()
        outcome = driver.run(method, messages, in_flight=job.in_flight, seconds=job.seconds)
        seconds = time.perf_counter() - begin
    return Share(job.address, outcome.calls * each, seconds, outcome.latencies_s)
