"""An origin that tests script, and an edge before it that a sponsor pays for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.edge.conftest import Answer, RunningEdge, Tenant, World
from tests.support.http_origin import HttpOrigin


@dataclass
class Fronted:
    """An edge before an origin."""

    edge: RunningEdge
    origin: HttpOrigin
    sponsor: Tenant

    async def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """One request through the edge, without a key of ours."""
        return await self.edge.get(f"/origins/site{path}", None, method, **headers)


@pytest.fixture
async def origin() -> AsyncIterator[HttpOrigin]:
    async with HttpOrigin() as origin:
        yield origin


@pytest.fixture
def options() -> dict[str, Any]:
    """What the edge is told of the origin; a module may say it otherwise."""
    return {}


@pytest.fixture
def settings() -> dict[str, Any]:
    """What the edge is told besides; a module may say it otherwise."""
    return {}


@pytest.fixture
async def fronted(
    world: World, origin: HttpOrigin, options: dict[str, Any], settings: dict[str, Any]
) -> AsyncIterator[Fronted]:
    sponsor = await world.tenant()
    site = {"url": origin.url, "sponsor": sponsor.account_id} | options
    async with world.edge(origins={"site": site}, **settings) as edge:
        yield Fronted(edge, origin, sponsor)
