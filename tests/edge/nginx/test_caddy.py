"""Caddy before a server of files, with deploy/caddy/Caddyfile: the edge admits and is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.edge.conftest import Tenant, World, some_bytes, until
from tests.edge.nginx.conftest import Front, Origin, behind_caddy
from tests.support.early_leavers import break_off, unmatched

SIZE = 300_000
LARGE = 12 * 1024 * 1024
LEAVERS = 100
SENT_AHEAD_BYTES = 3 * 1024 * 1024
"""Half of what the kernel takes of a connection, whose buffer Caddy does not bound."""


@pytest.fixture
async def front(
    world: World, origin: Origin, front_settings: dict[str, Any], tmp_path: Path
) -> AsyncIterator[Front]:
    async with behind_caddy(world, origin, tmp_path, front_settings) as front:
        yield front


async def _all_reported(front: Front) -> None:
    await until(lambda: front.edge.edge.door.open_tickets == 0, "every ticket is reported")


async def test_what_was_received_is_what_is_paid(
    front: Front, origin: Origin, tenant: Tenant
) -> None:
    data = some_bytes(SIZE)
    answer = await front.get(origin.put("a", data), tenant)
    assert (answer.status, answer.body) == (200, data)
    assert int(answer.headers["Tollmesh-Cost"]) > 0
    await _all_reported(front)
    [paid] = await tenant.paid()
    assert paid.metered.quantity == SIZE


async def test_refusals_are_the_edge_s_own(
    world: World, front: Front, origin: Origin, tenant: Tenant
) -> None:
    path = origin.put("a", b"a")
    refused = await front.get(path)
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="tollmesh"'
    poor = await front.get(path, await world.tenant(credit=0))
    assert (poor.status, poor.json()["reason"]) == (402, "INSUFFICIENT_CREDIT")
    assert poor.headers["Content-Type"] == "application/problem+json"
    assert not origin.seen
    await front.get(path, tenant)
    [request] = origin.seen
    assert "Authorization" not in request.headers
    assert request.headers["Tollmesh-Account"] == tenant.account_id


async def test_readers_that_leave_early_pay_what_was_sent(
    front: Front, origin: Origin, tenant: Tenant, dice: random.Random
) -> None:
    requests = [(origin.put("a", some_bytes(LARGE)), tenant.headers)] * LEAVERS
    broken = await break_off(
        front.nginx.port, requests, LARGE, dice, send_buffer_bytes=SENT_AHEAD_BYTES
    )
    await _all_reported(front)
    assert not unmatched(await tenant.paid_bytes(), broken)


async def test_who_leaves_before_the_answer_leaves_no_ticket_open(
    front: Front, origin: Origin, tenant: Tenant
) -> None:
    path = origin.put("a", some_bytes(SIZE))
    asking = [asyncio.create_task(front.get(path, tenant)) for _ in range(20)]
    for number, task in enumerate(asking):
        await asyncio.sleep(0.001 * (number % 4))
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await _all_reported(front)
