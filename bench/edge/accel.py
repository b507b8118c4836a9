"""X-Accel: an nginx before an edge sends what is in the cache; both together beside nginx alone."""

from __future__ import annotations

from dataclasses import dataclass

from bench.edge import nginx
from bench.edge.hits import absolute
from bench.edge.report import Row, ratios
from bench.edge.stage import Case, Server, Stage, request
from bench.edge.world import World, payload, start_edge, start_world
from tests.support.debian import program
from tests.support.nginx import capture_log, lay_out

SIZE = 64 * 1024
_SECRET = "a-secret-of-the-bench-0123456789"  # noqa: S105 (of no use elsewhere)
_PREFIX = "/tollmesh-cache/"


@dataclass(frozen=True)
class Together(Server):
    """Two programs that answer together: the second is behind the first."""

    behind: Server

    @property
    def processor_s(self) -> float:
        """Of both."""
        return super().processor_s + self.behind.processor_s


async def rows(stage: Stage) -> list[Row]:
    """The rows of this subject."""
    world = await start_world(stage, (SIZE,))
    root = stage.home / "files"
    root.mkdir()
    (root / "file").write_bytes(payload(SIZE))
    static = await nginx.static(stage, root)
    accelerated = await _accelerated(stage, world)
    asked = [request(world.path(SIZE), world.headers)]
    cases = {
        "static": Case(static, [request("/file")]),
        "accelerated": Case(accelerated, asked),
        "edge alone": Case(accelerated.behind, asked),
    }
    found = await stage.compare(cases)
    theirs = [one.processor_us for one in found["static"]]
    rows = []
    for name, most in (("accelerated", 2.2), ("edge alone", None)):
        values = ratios([one.processor_us for one in found[name]], theirs)
        note = f"{absolute(found[name])} : {absolute(found['static'])}"
        title = "64 KiB hit by X-Accel" if most else "64 KiB hit by that edge itself"
        rows.append(Row(f"{title}, CPU", "nginx static", values, at_most=most, note=note))
    return rows


async def _accelerated(stage: Stage, world: World) -> Together:
    """Nginx with the deployed configuration, and an edge that follows its log."""
    home, secret_file = stage.home / "accelerator", stage.home / "front.secret"
    home.mkdir()
    secret_file.write_text(_SECRET)
    front_socket = home / "edge.socket"
    settings = {
        "front_socket": str(front_socket),
        "front_secret_file": str(secret_file),
        "accel_prefix": _PREFIX,
        "capture_log": str(capture_log(home)),
        "guest_tickets": "65536",
    }
    edge = await start_edge(stage, world, "accelerated-edge", settings=settings)
    address = stage.address()
    port = int(address.rpartition(":")[2])
    cache_dir = stage.home / "accelerated-edge"
    lay_out(home, port, f"unix:{front_socket}", _SECRET, "127.0.0.1:9", cache_dir)
    command = [program("nginx"), "-p", str(home), "-c", str(home / "accelerator.conf")]
    command += ["-e", str(home / "error.log"), "-g", "daemon off;"]
    front = await stage.serve("accelerator", command, address, {})
    return Together(front.name, front.address, front.pid, edge)
