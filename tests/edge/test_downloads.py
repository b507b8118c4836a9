"""Downloads over HTTP: bytes, headers, prices."""

from __future__ import annotations

from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes


async def test_a_miss_then_hits_give_the_bytes_at_their_prices(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(3_000_000)
    cid = world.chain.add(data)
    first = await edge.get(object_path(cid), tenant)
    assert (first.status, first.body == data) == (200, True)
    assert first.headers["Cache-Status"] == '"test"; fwd=uri-miss; stored'
    await edge.cached(cid)
    second = await edge.get(object_path(cid), tenant)
    assert second.body == data
    assert second.headers["Cache-Status"] == '"test"; hit; detail=disk'
    entries = await tenant.paid()
    assert [entry.metered.quantity for entry in entries] == [3_000_000, 3_000_000]
    assert [entry.amount for entry in entries] == [5860, 2930]
    assert first.headers["Tollmesh-Cost"] == "5860"
    assert second.headers["Tollmesh-Cost"] == "2930"
    assert world.chain.reads == [(cid, 0, 3_000_000)]
