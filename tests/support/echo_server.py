"""The echo service on either face, always a process of its own; what its handlers tell of it.

``running_echo(face, directory)`` is how tests/rpc starts it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from services.rpc.client import connect
from services.rpc.errors import ServiceError
from services.rpc.tls import ClientTls
from tests.support.deadline import DEADLINE_S
from tests.support.echo_service import pb_grpc

ROOT = Path(__file__).parents[2]
Line = dict[str, Any]


class EchoServer:
    """A process that was started; ``address`` is there once it listens."""

    def __init__(self, face: str, directory: Path) -> None:
        self.face = face
        self.log_file = directory / "echo.log"
        self.ready_file = directory / "echo.ready"
        self._gates = directory / "gates"
        self._gates.mkdir()
        self._lines: list[Line] = []
        self._read = 0
        self.process: subprocess.Popen[bytes]

    def start(self, settings: Mapping[str, str]) -> None:
        """Starts the process, with these settings beside those that every test has."""
        own = {"listen": "127.0.0.1:0", "ready_file": self.ready_file, "gates": self._gates}
        face = {} if self.face == "grpcio" else {"face": self.face}
        chosen = {**own, **face, **settings}
        variables = {f"TOLLMESH_ECHO_{name.upper()}": str(text) for name, text in chosen.items()}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.echo_process"],
                cwd=ROOT,
                env={**os.environ, **variables},
                stdout=log,
                stderr=log,
            )

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.ready_file.read_text().strip()

    def wait_until_ready(self) -> None:
        """Blocks until it listens."""
        deadline = time.monotonic() + DEADLINE_S
        while not self.ready_file.exists():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.01)

    @asynccontextmanager
    async def stub(
        self, *, errors: Iterable[type[ServiceError]] = (), tls: ClientTls | None = None
    ) -> AsyncIterator[Any]:
        """A stub over a channel as services make theirs."""
        async with connect(self.address, errors=errors, tls=tls) as channel:
            yield pb_grpc.EchoServiceStub(channel)

    def open_gate(self, key: str) -> None:
        """Lets the calls go on that hold at this gate."""
        (self._gates / key).touch()

    async def until_step(self, key: str, step: str, times: int = 1) -> Line:
        """Waits until a handler has told of a step so many times; gives the last of them."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                found = [line for line in self.steps(key) if line["step"] == step]
                if len(found) >= times:
                    return found[times - 1]
                await asyncio.sleep(0.005)

    def steps(self, key: str) -> list[Line]:
        """What handlers of calls with this key have told so far."""
        return [line for line in self.lines("step") if line["key"] == key]

    def told(self, key: str) -> list[str]:
        """The names of those steps."""
        return [str(line["step"]) for line in self.steps(key)]

    async def until_logged(self, event: str, **fields: object) -> Line:
        """Waits for a line of the log."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for line in self.lines(event):
                    if fields.items() <= line.items():
                        return line
                await asyncio.sleep(0.005)

    def lines(self, event: str) -> list[Line]:
        """The log's lines of one event."""
        with self.log_file.open("rb") as log:
            log.seek(self._read)
            whole, newline, _ = log.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        self._lines += [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
        return [line for line in self._lines if line["event"] == event]

    def text(self) -> str:
        """All that it has written."""
        return self.log_file.read_text()

    def resident_bytes(self) -> int:
        """The memory that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    async def status(self) -> int:
        """Its exit status, once it has ended."""
        async with asyncio.timeout(DEADLINE_S):
            while (status := self.process.poll()) is None:  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.01)
        return status

    async def stop(self) -> int:
        """Asks it to end, and gives its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await self.status()


@contextmanager
def started_echo(
    face: str, directory: Path, settings: Mapping[str, str] | None = None
) -> Iterator[EchoServer]:
    """Starts the process, and kills it at the end when it still runs."""
    directory.mkdir(exist_ok=True)
    server = EchoServer(face, directory)
    server.start(settings or {})
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()


@contextmanager
def running_echo(
    face: str, directory: Path, settings: Mapping[str, str] | None = None
) -> Iterator[EchoServer]:
    """As ``started_echo``, and waits until it listens."""
    with started_echo(face, directory, settings) as server:
        server.wait_until_ready()
        yield server
