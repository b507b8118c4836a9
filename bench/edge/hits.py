"""Hits: what an authorised, metered answer from the cache costs beside nginx and a file."""

from __future__ import annotations

import statistics

from bench.edge import nginx
from bench.edge.report import Row, ratios
from bench.edge.stage import Case, Measured, Stage, request
from bench.edge.world import payload, start_edge, start_world

KIBIBYTE, MEBIBYTE = 1024, 1024 * 1024
SMALL, LARGE = 64 * KIBIBYTE, MEBIBYTE


async def rows(stage: Stage) -> list[Row]:
    """The rows of this subject."""
    world = await start_world(stage, (SMALL, LARGE))
    root = stage.home / "files"
    root.mkdir()
    for size in (SMALL, LARGE):
        (root / str(size)).write_bytes(payload(size))
    static = await nginx.static(stage, root)
    edge = await start_edge(stage, world)
    anybodys = await start_edge(stage, world, "open-edge", module="bench.edge.open_edge")
    cases = {}
    for size in (SMALL, LARGE):
        cases[f"nginx {size}"] = Case(static, [request(f"/{size}")])
        cases[f"edge {size}"] = Case(edge, [request(world.path(size), world.headers)])
    cases["open"] = Case(anybodys, [request(world.path(SMALL), world.headers)])
    found = await stage.compare(cases)
    small, large = found[f"edge {SMALL}"], found[f"edge {LARGE}"]
    smalls, larges = found[f"nginx {SMALL}"], found[f"nginx {LARGE}"]
    p99 = ratios([one.p99_us for one in small], [one.p99_us for one in smalls])
    return [
        _processor("64 KiB hit, CPU", small, "nginx static", smalls, 2.0),
        _processor("64 KiB hit, CPU", small, "itself without admission", found["open"], 1.25),
        _processor("1 MiB hit, CPU", large, "nginx static", larges, 3.0),
        Row("64 KiB hit, p99", "nginx static", p99, at_most=3.0),
    ]


def _processor(
    name: str, ours: list[Measured], of: str, theirs: list[Measured], at_most: float
) -> Row:
    values = ratios([one.processor_us for one in ours], [one.processor_us for one in theirs])
    return Row(name, of, values, at_most=at_most, note=f"{absolute(ours)} : {absolute(theirs)}")


def absolute(runs: list[Measured]) -> str:
    """Processor time an answer, and how busy the server was."""
    cost = statistics.median(one.processor_us for one in runs)
    busy = statistics.median(one.busy for one in runs)
    return f"{cost:.0f} us ({busy:.0%} busy)"
