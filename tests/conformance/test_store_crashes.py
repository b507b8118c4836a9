"""A client that is killed: what it acknowledged is there, and nothing is there in part."""

from __future__ import annotations

from services.store.port import Store
from tests.support import store_writer
from tests.support.store_homes import Home

KILLS = 15


async def test_a_killed_client_leaves_every_acknowledged_operation_and_none_in_part(
    home: Home, seed: int
) -> None:
    interrupted = 0
    for kill in range(KILLS):
        acknowledged = await home.write_until_killed(seed + kill)
        store = await home.open()
        await _check(store, acknowledged)
        interrupted += len(acknowledged) < store_writer.OPERATIONS
        await store_writer.erase(store)
        await store.close()
    assert interrupted, "every writer had finished before it was killed"


async def _check(store: Store, acknowledged: list[str]) -> None:
    found = await store_writer.found_in(store)
    assert set(acknowledged) <= found.parts.keys()
    assert set(found.parts.values()) <= {store_writer.PARTS}
    assert sorted(found.log) == sorted(found.parts)
    assert found.count == len(found.parts)
