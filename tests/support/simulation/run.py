"""One run: many clients, two credit processes, one cluster, and everything that may go wrong.

A run is made of rounds. In a round clients call at once while processes are killed, clocks jump and
the cluster cannot be reached; then all is quiet, and the checker judges the round.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, cast
from unittest.mock import patch

from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2

from services.credits import sweeper
from services.store.engines.simulated import Faults, SimulatedCluster
from tests.support.credit_calls import model_tariff
from tests.support.history import Call, History, Message
from tests.support.history_check import Checker, Violation
from tests.support.simulation import loop as virtual
from tests.support.simulation.mishaps import Mishaps
from tests.support.simulation.process import Process
from tests.support.simulation.report import HAPPENS, Report
from tests.support.simulation.requests import OVERDRAFT, Asker

CLIENTS = 24
CALLS_A_ROUND = 20
"""Of each client."""
REST_S = (0, 1, 30, 3600, 6 * 3600)
"""How long nobody does anything after a round."""
FAULTS = Faults(
    conflict=0.03,
    too_old=0.01,
    unknown_applied=0.04,
    unknown_lost=0.04,
    unknown_late=0.04,
    landing=0.01,
    slow=0.3,
    longest_s=0.05,
)
_ONCE = {pb.ENTRY_KIND_GRANT, pb.ENTRY_KIND_DEBIT, pb.ENTRY_KIND_RESERVE, pb.ENTRY_KIND_REFUND}
"""Of these a request makes one entry."""


def command(seed: int, operations: int) -> str:
    """What repeats a run."""
    return f"python -m tests.support.simulation --seed {seed} --operations {operations}"


def simulate(seed: int, operations: int, *, must_happen: bool = True) -> Report:
    """A run of at least so many operations; raises ``Violation`` for what is wrong.

    Args:
        must_happen: that a fault of ``HAPPENS`` did not happen is wrong, too.
    """
    with patch.object(sweeper, "_log", _Silent()):
        try:
            report = virtual.run(_simulate(seed, operations))
        except Violation:
            raise
        except Exception as error:
            raise Violation(f"a service fails: {error!r}") from error
    missing = [name for name in HAPPENS if not report.counts[name]]
    if missing and must_happen:
        raise Violation(f"seed {seed}: never happened: {', '.join(missing)}")
    return report


class _Silent:
    """A log of settlements that failed: they do all the time while the cluster is cut off."""

    def error(self, event: str, **_: object) -> None:
        assert event == "settlement_failed", event


async def _simulate(seed: int, operations: int) -> Report:
    return await Simulation(seed).run(operations)


class Simulation:
    """A run in progress."""

    def __init__(self, seed: int) -> None:
        self._loop = cast("virtual.VirtualLoop", asyncio.get_running_loop())
        self._cluster = SimulatedCluster(seed, FAULTS)
        self._dice = self._cluster.random
        self._processes = [Process(self._cluster, number) for number in range(2)]
        self._mishaps = Mishaps(self._cluster, self._processes)
        self._asker = Asker(self._dice, self._loop.time)
        self._checker = Checker(model_tariff())
        self._moments = itertools.count(1)
        self._last: dict[str, str] = {}
        """Each account's newest entry that was read."""
        self._billed: set[str] = set()
        self._trace = blake2b(digest_size=16)
        self.report = Report(seed, counts=self._cluster.counts)

    async def run(self, operations: int) -> Report:
        """Rounds until there were so many operations, then an audit of everything."""
        while self.report.operations < operations:
            await self._round()
            self.report.rounds += 1
        await self._audit()
        self.report.accounts = len(self._last)
        self.report.digest = self._trace.hexdigest()
        return self.report

    async def _round(self) -> None:
        self._asker.new_round()
        history = History(clock=partial(next, self._moments))
        mishaps = self._loop.create_task(self._mishaps.go_on())
        await asyncio.gather(*(self._client(history) for _ in range(CLIENTS)))
        mishaps.cancel()
        await self._quiet()
        for account_id in sorted({call.account_id for call in history.calls}):
            history.ledgers[account_id] = await self._news(account_id)
        self.report.calls += len(history.calls)
        self._checker.check(history)
        self._loop.skip(self._dice.choice(REST_S))

    async def _client(self, history: History) -> None:
        for _ in range(CALLS_A_ROUND):
            method, request = self._asker.request()
            self.report.operations += 1
            if self._dice.random() < 0.05:
                await asyncio.gather(
                    self._until_known(history, method, request),
                    self._until_known(history, method, request),
                )
            else:
                await self._until_known(history, method, request)

    async def _until_known(self, history: History, method: str, request: Message) -> None:
        """Asks again, one process or the other, until the outcome is known."""
        while True:
            process = await self._any_process()
            moment = process.clock.moment
            calls = await history.call(_Stub(process), method, request)
            nows_us = process.clock.told_since(moment)
            for call in calls:
                call.nows_us = nows_us
                self._note(call, process)
            if not any(call.unknown for call in calls):
                break
            self.report.counts["retried"] += 1
            await asyncio.sleep(self._dice.random() * 0.05)

    async def _any_process(self) -> Process:
        while not (up := [process for process in self._processes if process.is_up]):  # noqa: ASYNC110 (virtual time)
            await asyncio.sleep(0.01)
        return self._dice.choice(up)

    def _note(self, call: Call, process: Process) -> None:
        """Learns, counts, and adds to the trace."""
        self._asker.learn(call)
        counts = self.report.counts
        counts["replayed"] += bool(call.answer and call.request_id and not call.fresh)
        counts[call.method] += call.fresh or not call.request_id
        counts["refused"] += call.refusal is not None
        counts["reused"] += call.refusal is not None and call.refusal[0] == "REQUEST_ID_REUSED"
        outcome: object = None
        if call.answer is not None:
            outcome = call.answer.SerializeToString(deterministic=True)
        elif call.refusal is not None:
            outcome = call.refusal[0], sorted(call.refusal[1].items())
        self._trace.update(f"{call.start} {call.end} {process.number} {outcome!r}\n".encode())

    async def _quiet(self) -> None:
        """Waits until everything is up, and no commit may still be applied."""
        await self._mishaps.over()
        while self._cluster.undecided:
            await self._cluster.delay()

    async def _news(self, account_id: str) -> list[pb.Entry]:
        """The entries that an account got since they were read last."""
        last, token, news = self._last.get(account_id, ""), "", list[pb.Entry]()
        process = self._dice.choice(self._processes)
        while True:
            request = pb.ListEntriesRequest(
                account_id=account_id, page_size=100, page_token=token, newest_first=True
            )
            page = await process.call("ListEntries", request)
            news += [entry for entry in page.entries if entry.entry_id > last]
            token = page.next_page_token
            if not token or page.entries[-1].entry_id <= last:
                break
        news.reverse()
        if news:
            self._last[account_id] = news[-1].entry_id
        self._check_billing(news)
        self.report.entries += len(news)
        self.report.counts["settled"] += sum(not entry.request_id for entry in news)
        for entry in news:
            kind = pb.EntryKind.Name(entry.kind)
            self.report.counts[kind.removeprefix("ENTRY_KIND_").lower()] += 1
            self._trace.update(entry.SerializeToString(deterministic=True))
        return news

    def _check_billing(self, news: Sequence[pb.Entry]) -> None:
        """Whatever the model says: no account is overspent, and nothing is billed twice."""
        for entry in news:
            name = f"entry {entry.entry_id} of {entry.account_id}"
            if entry.available_after < -OVERDRAFT or entry.held_after < 0:
                raise Violation(f"{name}: overspent")
            if entry.kind in _ONCE:
                if entry.request_id in self._billed:
                    raise Violation(f"{name}: billed twice, {entry.request_id}")
                self._billed.add(entry.request_id)

    async def _audit(self) -> None:
        """The service's own proof that every account is right."""
        process = self._processes[0]
        report = await process.do(_audited(process))
        if not report.done or report.HasField("difference"):
            raise Violation(f"the audit found {report}")


class _Stub:
    """Calls a process, as the stub of a channel would."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def __getattr__(self, method: str) -> Callable[[Message], object]:
        return partial(self._process.call, method)


async def _audited(process: Process) -> ledger_pb2.AuditResponse:
    last = ledger_pb2.AuditResponse()
    credits: Any = process.service.direct  # of every contract
    async for part in credits.Audit(ledger_pb2.AuditRequest()):
        last = part
    return last
