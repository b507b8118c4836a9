"""The servers under measurement: started on one core, listening, stopped by their process id."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.load import Target
from services.cli.mesh.processes import Child, free_port, start, stop

SERVER_CORE, LOAD_CORE = 0, 1 % (os.cpu_count() or 1)
FACES = ("envoy", "grpcio")
_RUN_ON = (sys.executable, "-m", "bench.pinned")
ONE_CORE = (*_RUN_ON, str(SERVER_CORE))
"""What a command that runs on the servers' core begins with."""
EVERY_CORE = (*_RUN_ON, ",".join(map(str, os.sched_getaffinity(0))))


class Servers:
    """What runs; stopped together."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.children: list[Child] = []

    async def credits(self, face: str, store: Path, name: str = "credits") -> Target:
        """The credit service as it is."""
        store.mkdir(parents=True)  # noqa: ASYNC240 (nothing else happens meanwhile)
        settings = {"TOLLMESH_CREDITS_STORE": f"lmdb://{store}"}
        return await self._service("services.credits", f"{name}-{face}", face, settings)

    async def noop(self, face: str) -> Target:
        """A Debit that does nothing, served as any method is."""
        return await self._service("bench.noop_server", f"noop-{face}", face, {})

    async def peer(self, module: str, face: str, settings: Mapping[str, str]) -> Target:
        """The same contract over another store."""
        return await self._service(module, module.rpartition(".")[2], face, settings)

    async def bare(self, face: str) -> Target:
        """A method that does nothing on the library under a face alone."""
        address = f"127.0.0.1:{free_port()}"
        if face == "grpcio":
            command = [sys.executable, "-m", "bench.grpcio_noop", address]
        else:
            port = address.rpartition(":")[2]
            app = ["-m", "bench.asgi_noop", port]
            command = [sys.executable, *app]
        return await self._start(f"bare-{face}", command, address, {})

    async def stop(self) -> None:
        """Stops them all."""
        await stop(self.children)

    async def end(self, target: Target) -> None:
        """Stops one."""
        (child,) = (one for one in self.children if one.process.pid == target.pid)
        self.children.remove(child)
        await stop([child])

    async def _service(
        self, module: str, name: str, face: str, settings: Mapping[str, str]
    ) -> Target:
        address = f"127.0.0.1:{free_port()}"
        prefix = "TOLLMESH_CREDITS"
        environment = {
            f"{prefix}_LISTEN": address,
            f"{prefix}_FACE": face,
            f"{prefix}_LOG_LEVEL": "info",
            f"{prefix}_STORE": "lmdb:///nowhere",
            **settings,
        }
        return await self._start(name, [sys.executable, "-m", module], address, environment)

    async def _start(
        self, name: str, command: Sequence[str], address: str, environment: Mapping[str, str]
    ) -> Target:
        child = start(name, [*ONE_CORE, *command], self.home, environment)
        self.children.append(child)
        await child.listening(address)
        return Target(address, child.process.pid)
