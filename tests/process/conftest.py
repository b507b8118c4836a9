"""The echo service as a process of its own, on each face."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.deadline import DEADLINE_S

ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class EchoProcess:
    """A process that was started with some settings."""

    process: asyncio.subprocess.Process
    log_file: Path
    ready_file: Path

    @property
    def address(self) -> str:
        return self.ready_file.read_text().strip()

    async def until_ready(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not self.ready_file.exists():
                assert self.process.returncode is None, self.text()
                await asyncio.sleep(0.02)

    async def until_logged(self, event: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while f'"event":"{event}"' not in self.text():  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.02)

    async def status(self) -> int:
        """Its exit status, once it has ended."""
        return await asyncio.wait_for(self.process.wait(), DEADLINE_S)

    def text(self) -> str:
        return self.log_file.read_text()

    def lines(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.text().splitlines()]
        return [line for line in lines if line["event"] == event]


StartEcho = Callable[..., AbstractAsyncContextManager[EchoProcess]]


@pytest.fixture(params=["grpcio", "envoy"])
def start_echo(tmp_path: Path, request: pytest.FixtureRequest) -> StartEcho:
    """``async with start_echo({"drain_s": "1"}, "--check") as echo:``"""

    @asynccontextmanager
    async def start(
        settings: Mapping[str, str] | None = None, *arguments: str, output: int | None = None
    ) -> AsyncIterator[EchoProcess]:
        log_file, ready_file = tmp_path / "echo.log", tmp_path / "echo.ready"
        chosen = {"face": request.param, "ready_file": str(ready_file), **(settings or {})}
        variables = {f"TOLLMESH_ECHO_{name.upper()}": value for name, value in chosen.items()}
        with log_file.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.support.echo_process",
                *arguments,
                cwd=ROOT,
                env={**os.environ, **variables},
                stdout=log,
                stderr=log if output is None else output,
            )
        try:
            yield EchoProcess(process, log_file, ready_file)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return start
