"""What the load driver sends: debits, each with a request id of its own, and what is counted."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tollmesh.credits.v1 import credits_pb2 as pb

from bench.http2_load import Driver, Outcome

SERVICE = "/tollmesh.credits.v1.CreditService"
DEBIT, BATCH_DEBIT = f"{SERVICE}/Debit", f"{SERVICE}/BatchDebit"
STREAM_DEBITS, GRANT = f"{SERVICE}/StreamDebits", f"{SERVICE}/Grant"
HOT = "hot"
ENOUGH = 1 << 50
"""What every account is granted."""


def account_name(number: int) -> str:
    """The accounts over which debits are spread."""
    return f"account-{number:06}"


@dataclass
class Load:
    """Makes requests; no two of one Load, nor of two with other names, share a request id."""

    name: str = field(default_factory=lambda: os.urandom(4).hex())
    made: Iterator[int] = field(default_factory=itertools.count)

    def debit(self, account: str) -> pb.DebitRequest:
        """One debit of one credit; its id has 21 characters."""
        request_id = f"{self.name}-{next(self.made):012}"
        return pb.DebitRequest(request_id=request_id, account_id=account, amount=1)

    def debits(self, accounts: int) -> Iterator[pb.DebitRequest]:
        """Debits of the hot account (0), or of so many accounts in an order without a pattern."""
        if not accounts:
            while True:
                yield self.debit(HOT)
        # A step that has no factor in common with the number visits each account once a round.
        step = next(n for n in range(accounts * 5 // 8 + 1, accounts * 2) if _coprime(n, accounts))
        for turn in itertools.count():
            yield self.debit(account_name(turn * step % accounts))

    def unary(self, accounts: int) -> Iterator[bytes]:
        """The same, encoded."""
        return (debit.SerializeToString() for debit in self.debits(accounts))

    def batches(self, accounts: int, size: int) -> Iterator[bytes]:
        """Debits in batches, for BatchDebit and, having the same field, for StreamDebits."""
        debits = self.debits(accounts)
        while True:
            batch = list(itertools.islice(debits, size))
            yield pb.BatchDebitRequest(debits=batch).SerializeToString()


def grants(accounts: int) -> Iterator[bytes]:
    """Enough for the hot account and for each of the others; harmless to send again."""
    for name in (HOT, *map(account_name, range(accounts))):
        request = pb.GrantRequest(request_id=f"grant-{name}", account_id=name, amount=ENOUGH)
        yield request.SerializeToString()


@dataclass
class Measured:
    """One run of calls, and the processor time that it took the server."""

    outcome: Outcome
    processor_s: float
    each: int = 1
    """Debits in a call."""

    @property
    def rate(self) -> float:
        """Debits (or calls that do nothing) a second."""
        return self.outcome.rate * self.each

    @property
    def processor_us(self) -> float:
        """Processor time for each, all threads and the kernel's part, in microseconds."""
        return 1e6 * self.processor_s / max(1, self.outcome.calls * self.each)


@dataclass
class Target:
    """A server under load."""

    address: str
    pid: int

    def run(
        self, method: str, messages: Iterator[bytes], in_flight: int, seconds: float, each: int = 1
    ) -> Measured:
        """Calls a method for so long."""
        before = processor_s(self.pid)
        # A connection of its own: servers close one that does not answer their pings in between.
        with closing(Driver(self.address)) as driver:
            outcome = driver.run(method, messages, in_flight=in_flight, seconds=seconds)
        return Measured(outcome, processor_s(self.pid) - before, each)

    def stream(self, messages: Iterator[bytes], size: int, window: int, seconds: float) -> Measured:
        """Sends debits on one stream for so long, ``size`` a message, ``window`` unanswered."""
        before = processor_s(self.pid)
        with closing(Driver(self.address)) as driver:
            outcome = driver.stream(
                STREAM_DEBITS, messages, _outcomes, size=size, window=window, seconds=seconds
            )
        return Measured(outcome, processor_s(self.pid) - before)

    def all_of(self, method: str, messages: Iterator[bytes], in_flight: int = 200) -> Outcome:
        """Makes a call for each message."""
        with closing(Driver(self.address)) as driver:
            return driver.run(method, messages, in_flight=in_flight, seconds=None)


def processor_s(pid: int) -> float:
    """What a process has used so far, from ``/proc/PID/stat`` (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    """The memory that a process has of its own, from ``/proc/PID/smaps_rollup`` (proc(5)).

    Pages of a mapped data file are the page cache's: the kernel takes them back when it needs to.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return sizes["Anonymous"] / 1024


def _outcomes(message: bytes) -> int:
    response = pb.StreamDebitsResponse.FromString(message)
    refused = [outcome.error for outcome in response.outcomes if outcome.HasField("error")]
    if refused:
        raise ConnectionError(f"a debit was refused: {refused[0]}")
    return len(response.outcomes)


def _coprime(one: int, other: int) -> bool:
    while other:
        one, other = other, one % other
    return one == 1
