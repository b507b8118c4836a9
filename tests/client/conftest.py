"""A credit service as a process, behind a relay that can drop what it answers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.service_process import ServiceProcess, running

ON_BOTH_FACES = pytest.mark.parametrize("service", ["grpcio", "envoy"], indirect=True)


@dataclass
class Relay:
    """Passes bytes on between clients and a service; ``cut`` breaks what is open."""

    target: str
    address: str = ""
    swallow: int = 0
    """So many more connections are broken when the service first answers a call on them."""
    swallowed: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _serving: set[asyncio.Task[None]] = field(default_factory=set)
    _ended: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._open.add(writer)
        host, _, port = self.target.rpartition(":")
        try:
            if self._ended:
                return
            there, back = await asyncio.open_connection(host, int(port))
            self._open.add(back)
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer, answers=True))
            self._open.discard(back)
            await _closed(back)
        except OSError:
            pass
        finally:
            self._open.discard(writer)
            await _closed(writer)
            self._serving.discard(task)

    async def _copy(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        answers: bool = False,
    ) -> None:
        parts = 0
        try:
            while data := await reader.read(65_536):
                parts += 1
                # What comes after the greetings is an answer; the service has done its work.
                if answers and self.swallow and parts > 2 and b"\x00\x00\x00\x00" in data:
                    self.swallow -= 1
                    self.swallowed += 1
                    self.cut()
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def end(self) -> None:
        """Breaks what is open or just being opened, and waits until it is gone."""
        self._ended = True
        while self._serving:
            self.cut()
            await asyncio.wait(self._serving, timeout=0.1)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@dataclass
class Service:
    """The process that runs now, and what its log said."""

    directory: Path
    process: ServiceProcess
    settings: dict[str, str] = field(default_factory=dict)

    def calls(self, method: str) -> list[dict[str, object]]:
        lines = (json.loads(line) for line in self.process.log().splitlines() if line[:1] == "{")
        return [line for line in lines if str(line.get("method", "")).endswith(f"/{method}")]


@pytest.fixture
async def service(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    """On the grpcio face, or the one that ``ON_BOTH_FACES`` gives."""
    face = getattr(request, "param", "grpcio")
    settings = {"store": f"lmdb://{tmp_path}/store", "log_level": "info", "face": face}
    (tmp_path / "store").mkdir()
    async with running("credits", settings, tmp_path) as process:
        yield Service(tmp_path, process, settings)


@pytest.fixture
async def relay(service: Service) -> AsyncIterator[Relay]:
    relay = Relay(service.process.address)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield relay
    server.close()
    await relay.end()


@pytest.fixture
def unused_address() -> str:
    """Where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"
