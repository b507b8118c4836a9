"""A service as a process of its own: ``python -m services.NAME``, ended before the test ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.deadline import DEADLINE_S

ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class ServiceProcess:
    """A process that listens on ``address``."""

    process: asyncio.subprocess.Process
    address: str
    log_file: Path

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and waits for the end; gives the exit status."""
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), DEADLINE_S)

    def log(self) -> str:
        """What it has written to standard output and standard error."""
        return self.log_file.read_text()


def environment_of(service: str, settings: Mapping[str, str]) -> dict[str, str]:
    """The test's environment, with these settings of the service and no others."""
    prefix = f"TOLLMESH_{service.upper()}_"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(prefix)}
    return inherited | {prefix + name.upper(): value for name, value in settings.items()}


async def run_to_its_end(
    service: str, settings: Mapping[str, str], *arguments: str, before: Sequence[str] = ()
) -> tuple[int, str]:
    """Runs a service that ends by itself (``--check``, wrong settings): exit status and output."""
    process = await _start(
        service, settings, *arguments, output=asyncio.subprocess.PIPE, before=before
    )
    output, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode is not None
    return process.returncode, output.decode()


@asynccontextmanager
async def running(
    service: str,
    settings: Mapping[str, str],
    directory: Path,
    *,
    module: str = "",
    before: Sequence[str] = (),
) -> AsyncIterator[ServiceProcess]:
    """Starts a service on a free port and waits until it listens; kills what is left at the end.

    ``module``: what is run, unless it is ``services.NAME``; ``before``: the beginning of the
    command, a program that becomes what follows.
    """
    ready_file, log_file = directory / f"{service}.ready", directory / f"{service}.log"
    ready_file.unlink(missing_ok=True)
    settings = {"listen": "127.0.0.1:0", **settings, "ready_file": str(ready_file)}
    with log_file.open("ab") as log:
        process = await _start(service, settings, output=log.fileno(), module=module, before=before)
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not ready_file.exists():
                assert process.returncode is None, log_file.read_text()
                await asyncio.sleep(0.02)
        yield ServiceProcess(process, ready_file.read_text().strip(), log_file)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _start(
    service: str,
    settings: Mapping[str, str],
    *arguments: str,
    output: int,
    module: str = "",
    before: Sequence[str] = (),
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *before,
        sys.executable,
        "-m",
        module or f"services.{service}",
        *arguments,
        cwd=ROOT,
        env=environment_of(service, settings),
        stdout=output,
        stderr=asyncio.subprocess.STDOUT if output == asyncio.subprocess.PIPE else output,
    )
