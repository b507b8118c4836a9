"""What is done to the cache of an edge on purpose, over HTTP."""

from __future__ import annotations

from tests.edge.conftest import Answer, RunningEdge, Tenant, World, object_path
from tests.support.fake_chain import NETWORK

MEBIBYTE = 1024 * 1024
BLOCKED_BY = "https://example.org/legal?case=7"


def ban_path(cid: str, network: str = NETWORK) -> str:
    """Where an object's ban is."""
    return f"/bans/{network}/{cid}"


async def warm(edge: RunningEdge, tenant: Tenant, cid: str) -> Answer:
    """Has an object be brought in."""
    return await edge.get(f"{object_path(cid)}/warm", tenant, "POST")


async def purge(edge: RunningEdge, tenant: Tenant, cid: str, query: str = "") -> Answer:
    """Has it be dropped."""
    return await edge.get(object_path(cid) + query, tenant, "DELETE")


async def ban(edge: RunningEdge, tenant: Tenant, cid: str, query: str = "") -> Answer:
    """Has it not be served."""
    return await edge.get(ban_path(cid) + query, tenant, "PUT")


async def cached(world: World, edge: RunningEdge, tenant: Tenant, data: bytes) -> str:
    """An object that is in both tiers."""
    cid = world.chain.add(data)
    await edge.get(object_path(cid), tenant)
    await edge.cached(cid)
    assert (await edge.get(object_path(cid), tenant)).body == data
    return cid
