"""A thousand readers that leave early: what is paid is what nginx sent, never less, never twice."""

from __future__ import annotations

import random

from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.edge.nginx.conftest import Front, Origin
from tests.support.early_leavers import Broken, break_off, unmatched

TENANTS, EACH = 8, 125
SIZE = 1024 * 1024
SEND_BUFFER_BYTES = 256 * 1024
"""As the site's ``listen`` has it."""


async def _broken_off(
    world: World, port: int, path: str, dice: random.Random
) -> tuple[list[Tenant], list[Broken]]:
    tenants = [await world.tenant() for _ in range(TENANTS)]
    requests = [(path, tenant.headers) for tenant in tenants] * EACH
    broken = await break_off(port, requests, SIZE, dice, send_buffer_bytes=SEND_BUFFER_BYTES)
    return tenants, broken


async def _all_is_paid(edge: RunningEdge, tenants: list[Tenant], broken: list[Broken]) -> None:
    await until(lambda: edge.edge.door.open_tickets == 0, "every ticket is reported")
    paid = [quantity for tenant in tenants for quantity in await tenant.paid_bytes()]
    assert not unmatched(paid, broken)


async def test_through_auth_request(
    world: World, front: Front, origin: Origin, dice: random.Random
) -> None:
    path = origin.put("a", some_bytes(SIZE))
    tenants, broken = await _broken_off(world, front.nginx.port, path, dice)
    await _all_is_paid(front.edge, tenants, broken)


async def test_through_the_accelerator(
    world: World, accelerated: Front, tenant: Tenant, dice: random.Random
) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    await accelerated.get(object_path(cid), tenant)
    await accelerated.edge.cached(cid)
    tenants, broken = await _broken_off(world, accelerated.nginx.port, object_path(cid), dice)
    await _all_is_paid(accelerated.edge, tenants, broken)
    assert len(accelerated.edge.edge.disk.loans) == 0
