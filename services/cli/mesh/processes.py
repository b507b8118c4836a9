"""Child processes of a local mesh: started, waited for, and stopped by their process id."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.cli.failure import FAILED, CommandError

START_S = 60.0
STOP_S = 20.0
_PORTS = range(12_000, 32_000)


@dataclass
class Child:
    """A running program."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    async def listening(self, address: str) -> None:
        """Waits until something listens at ``address`` (host:port).

        Raises CommandError with the end of the program's log when it ends before that.
        """
        host, _, port = address.rpartition(":")
        deadline = asyncio.get_running_loop().time() + START_S
        while asyncio.get_running_loop().time() < deadline:
            if self.process.poll() is not None:
                break
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(0.03)
                continue
            writer.close()
            return
        raise CommandError(
            f"{self.name} did not start; {self.log} ends with:\n{self._end()}", FAILED
        )

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if the program still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    async def ended(self) -> int:
        """Waits until the program has ended, and makes it end when it takes too long."""
        try:
            return await asyncio.to_thread(self.process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return await asyncio.to_thread(self.process.wait)

    def _end(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join(f"  {line}" for line in lines) or "  (nothing)"


def start(
    name: str, command: Sequence[str], log_dir: Path, environment: Mapping[str, str]
) -> Child:
    """Starts a program in a session of its own, with its output in ``log_dir``."""
    log = log_dir / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 (our own commands)
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C reaches the mesh alone, which stops it in order
        )
    return Child(name, process, log)


async def stop(children: Sequence[Child]) -> None:
    """Stops programs, the last started first, each after the one before has drained."""
    for child in reversed(children):
        child.signal(signal.SIGTERM)
        await child.ended()


def free_port(preferred: int = 0) -> int:
    """A TCP port of the loopback address that is free now: the preferred one if it is.

    Others are below the range from which systems give ports to outgoing connections (32768 and up
    on Linux), so none of those takes it before its program listens.
    """
    while True:
        port = preferred or _PORTS.start + secrets.randbelow(len(_PORTS))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                preferred = 0
                continue
            return port
