"""Another proxy in front of a plain file server, with an edge at its side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.edge.conftest import RunningEdge
from tests.support.envoy_proxy import EnvoyProxy, running_envoy
from tests.support.file_server import FileServer, running_files


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[FileServer]:
    """The file server."""
    async with running_files(tmp_path / "files") as server:
        yield server


@pytest.fixture
async def proxy(edge: RunningEdge, files: FileServer, tmp_path: Path) -> AsyncIterator[EnvoyProxy]:
    """An Envoy whose edge is ``edge``."""
    grpc = edge.edge.grpc.address
    async with running_envoy(tmp_path, edge=grpc, files=files.address) as server:
        yield server


@pytest.fixture
async def reader(proxy: EnvoyProxy) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of ``proxy``."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        proxy.url, auto_decompress=False, connector=connector
    ) as session:
        yield session
