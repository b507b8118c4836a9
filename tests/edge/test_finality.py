"""What is not final may vanish: the edge asks again, and never says more than the chain does."""

from __future__ import annotations

import pytest
from tollmesh.chain.v1 import chain_pb2

from services.chain.errors import NetworkUnavailableError
from tests.edge.conftest import RunningEdge, Tenant, World, object_path, until

FINAL = "private, max-age=31536000, immutable"
NOT_FINAL = "private, no-cache"


@pytest.fixture
def cid(world: World) -> str:
    return world.chain.add(b"hello", finality=chain_pb2.FINALITY_LATEST)


async def test_what_became_final_is_said_to_be(
    world: World, edge: RunningEdge, tenant: Tenant, cid: str
) -> None:
    assert (await edge.get(object_path(cid), tenant)).headers["Cache-Control"] == NOT_FINAL
    world.chain.objects[cid].finality = chain_pb2.FINALITY_FINALIZED

    async def is_final() -> bool:
        answer = await edge.get(object_path(cid), tenant, "HEAD")
        return bool(answer.headers["Cache-Control"] == FINAL)

    await until(is_final)
    asked = world.chain.stats[cid]
    for _ in range(5):
        assert await is_final()
    assert world.chain.stats[cid] == asked, "once final, always final"


async def test_what_vanished_by_a_reorg_is_not_served(
    world: World, edge: RunningEdge, tenant: Tenant, cid: str
) -> None:
    await edge.get(object_path(cid), tenant)
    await edge.cached(cid)
    etag = f'"{cid}"'
    vanished = world.chain.objects.pop(cid)

    async def is_gone() -> bool:
        answer = await edge.get(object_path(cid), tenant, If_None_Match=etag)
        assert answer.status in {304, 404}
        assert answer.headers["Cache-Control"] in {NOT_FINAL, "no-store"}
        return bool(answer.status == 404)

    await until(is_gone)
    assert (await edge.get(object_path(cid), tenant)).status == 404
    world.chain.objects[cid] = vanished

    async def is_back() -> bool:
        return bool((await edge.get(object_path(cid), tenant)).status == 200)

    await until(is_back)
    assert len(world.chain.reads) == 1, "the bytes were here all the time"


async def test_without_the_chain_what_is_held_is_served_but_not_called_final(
    world: World, edge: RunningEdge, tenant: Tenant, cid: str
) -> None:
    await edge.get(object_path(cid), tenant)
    await edge.cached(cid)
    asked = world.chain.stats[cid]
    world.chain.stat_failure = NetworkUnavailableError()

    async def was_asked_again() -> bool:
        answer = await edge.get(object_path(cid), tenant)
        assert (answer.status, answer.body) == (200, b"hello")
        assert answer.headers["Cache-Control"] == NOT_FINAL
        return world.chain.stats[cid] > asked

    await until(was_asked_again)


async def test_finality_survives_a_restart(world: World, tenant: Tenant, cid: str) -> None:
    world.chain.objects[cid].finality = chain_pb2.FINALITY_FINALIZED
    async with world.edge() as edge:
        await edge.get(object_path(cid), tenant)
        await edge.cached(cid)
    asked = world.chain.stats[cid]
    async with world.edge() as edge:
        answer = await edge.get(object_path(cid), tenant)
        assert answer.headers["Cache-Control"] == FINAL
        assert answer.headers["Cache-Status"] == '"test"; hit; detail=disk'
    assert world.chain.stats[cid] == asked


async def test_an_unsettled_object_is_asked_about_once_in_a_while_however_many_ask(
    world: World, tenant: Tenant, cid: str
) -> None:
    async with world.edge(finality_recheck_s=3600.0) as edge:
        for _ in range(5):
            await edge.get(object_path(cid), tenant)
    assert world.chain.stats[cid] == 1
