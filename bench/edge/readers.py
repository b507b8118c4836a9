"""A thousand readers that stall, of an object of a GiB: what they cost the edge in memory."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

from bench.edge.report import Row
from bench.edge.stage import Stage, request
from bench.edge.world import start_edge, start_world
from bench.load import memory_mib

READERS = 1000
SIZE = 1024 * 1024 * 1024
_READ_BYTES = 64 * 1024
_WAIT_S = 120.0
_SETTINGS = {"max_concurrent_calls": str(2 * READERS), "memory_bytes": str(64 * 1024 * 1024)}


async def rows(stage: Stage) -> list[Row]:
    """The row of this subject; measured once, for it takes its time."""
    world = await start_world(stage, (SIZE, _READ_BYTES))
    edge = await start_edge(stage, world, settings=_SETTINGS)
    asked = request(world.path(SIZE), world.headers).encode("latin-1")
    await asyncio.to_thread(_read, edge.address, asked, SIZE)
    with ExitStack() as readers:
        first = await asyncio.to_thread(_stalled, edge.address, asked)
        readers.enter_context(first)
        before = memory_mib(edge.pid)
        for _ in range(READERS - 1):
            readers.enter_context(await asyncio.to_thread(_stalled, edge.address, asked))
        grown = memory_mib(edge.pid) - before
    note = f"{READERS:,} readers of 1 GiB, each stalled after 64 KiB; from {before:.0f} MiB"
    return [Row("stalled readers, memory", "MiB grown", [grown], at_most=64.0, note=note)]


def _stalled(address: str, asked: bytes) -> socket.socket:
    """A reader that has taken the beginning, and takes no more."""
    reader = _asked(address, asked)
    _take(reader, _READ_BYTES)
    return reader


def _read(address: str, asked: bytes, size: int) -> None:
    """Reads an object, so that the edge has it."""
    with _asked(address, asked) as reader:
        _take(reader, size)


def _asked(address: str, asked: bytes) -> socket.socket:
    host, _, port = address.rpartition(":")
    reader = socket.create_connection((host, int(port)), timeout=_WAIT_S)
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _READ_BYTES)
    reader.sendall(asked)
    return reader


def _take(reader: socket.socket, count: int) -> None:
    buffer = bytearray(1024 * 1024)
    while count > 0:
        taken = reader.recv_into(buffer, min(count, len(buffer)), socket.MSG_TRUNC)
        if not taken:
            raise ConnectionError("the server ended the connection")
        count -= taken
