"""Where everything is measured: servers on one core, what loads and supports them on the other."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.edge.load import Order, Outcome
from bench.load import processor_s
from bench.servers import LOAD_CORE, ONE_CORE
from services.cli.mesh.processes import Child, free_port, start, stop

WARM_UP_S = 0.3
_ON_LOAD_CORE = (sys.executable, "-m", "bench.pinned", str(LOAD_CORE))


@dataclass(frozen=True, slots=True)
class Server:
    """A program under measurement."""

    name: str
    address: str
    pid: int
    """Its processor time counts, and that of all its descendants."""

    @property
    def processor_s(self) -> float:
        """What it has used so far, with its descendants."""
        return sum(processor_s(pid) for pid in _family(self.pid))


@dataclass(frozen=True, slots=True)
class Case:
    """A server and what it is asked for."""

    server: Server
    requests: Sequence[str]
    """As ``request`` makes them."""
    status: str = "200"
    """Every answer must have it."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a case."""

    outcome: Outcome
    processor_s: float

    @property
    def processor_us(self) -> float:
        """The server's processor time for each answer, kernel included, in microseconds."""
        return 1e6 * self.processor_s / self.outcome.answers

    @property
    def busy(self) -> float:
        """How much of one core the server used: well below 1 means that the load was too slow."""
        return self.processor_s / self.outcome.seconds

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.outcome.answers / self.outcome.seconds

    @property
    def p99_us(self) -> float:
        """From a request to the last byte of its answer, in microseconds."""
        return self.outcome.p99_us


@dataclass
class Stage:
    """The run: its servers, stopped together, and its terms."""

    home: Path
    rounds: int = 5
    seconds: float = 2.0
    connections: int = 16
    children: list[Child] = field(default_factory=list)

    async def serve(
        self, name: str, command: Sequence[str], address: str, environment: Mapping[str, str]
    ) -> Server:
        """Starts a program on the servers' core; returns when it listens at ``address``."""
        return await self._start(name, [*ONE_CORE, *command], address, environment)

    async def support(
        self, name: str, command: Sequence[str], address: str, environment: Mapping[str, str]
    ) -> Server:
        """The same on the load's core: what must be there and is not measured."""
        return await self._start(name, [*_ON_LOAD_CORE, *command], address, environment)

    def address(self) -> str:
        """A free one on the loopback interface."""
        return f"127.0.0.1:{free_port()}"

    async def measure(self, case: Case, seconds: float = 0.0, connections: int = 0) -> Measured:
        """One run. Raises RuntimeError when it was answered something else than expected."""
        order = Order(
            case.server.address,
            case.requests,
            connections or self.connections,
            seconds or self.seconds,
        )
        before = case.server.processor_s
        outcome = await _load(order)
        used = case.server.processor_s - before
        if set(outcome.statuses) != {case.status}:
            raise RuntimeError(f"{case.server.name} answered {outcome.statuses}")
        return Measured(outcome, used)

    async def compare(self, cases: Mapping[str, Case]) -> dict[str, list[Measured]]:
        """All cases in each round, one after the other, once they are warm."""
        for case in cases.values():
            await self.measure(case, WARM_UP_S)
        found: dict[str, list[Measured]] = {name: [] for name in cases}
        for _ in range(self.rounds):
            for name, case in cases.items():
                found[name].append(await self.measure(case))
        return found

    async def end(self, server: Server) -> None:
        """Stops one server."""
        (child,) = (one for one in self.children if one.process.pid == server.pid)
        self.children.remove(child)
        await stop([child])

    async def stop(self) -> None:
        """Stops them all."""
        await stop(self.children)

    async def _start(
        self, name: str, command: Sequence[str], address: str, environment: Mapping[str, str]
    ) -> Server:
        child = start(name, command, self.home, environment)
        self.children.append(child)
        await child.listening(address)
        return Server(name, address, child.process.pid)


def request(path: str, headers: Mapping[str, str] | None = None) -> str:
    """A GET that keeps its connection."""
    fields = {"Host": "edge.example", **(headers or {})}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""])


async def _load(order: Order) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        *_ON_LOAD_CORE,
        *(sys.executable, "-m", "bench.edge.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate(json.dumps(asdict(order)).encode())
    if process.returncode:
        raise RuntimeError("the load broke off")
    return Outcome(**json.loads(output))


def _family(pid: int) -> list[int]:
    """A process and its descendants (proc(5), ``/proc/PID/task/TID/children``)."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found
