"""Waits until a program listens."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.deadline import DEADLINE_S


async def until_it_listens(port: int, process: asyncio.subprocess.Process, log_file: Path) -> None:
    """Waits until something listens at a port of this machine.

    Raises AssertionError, with its log, when the program ends before that, and TimeoutError.
    """
    async with asyncio.timeout(DEADLINE_S):
        while True:
            _check(process, log_file)
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


def _check(process: asyncio.subprocess.Process, log_file: Path) -> None:
    assert process.returncode is None, log_file.read_text()
