"""Requests name one host, or are refused; whichever host it is."""

from __future__ import annotations

import asyncio

import pytest

from services.edge.http.hosts import is_host
from tests.edge.conftest import RunningEdge, Tenant, World, object_path
from tests.support.raw_http import RawAnswer, RawClient


async def _ask(edge: RunningEdge, path: str, *fields: tuple[str, str]) -> RawAnswer:
    client = RawClient(edge.host, edge.port)
    try:
        return await asyncio.to_thread(client.ask, "GET", path, fields)
    finally:
        client.close()


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (["edge"], 200),
        (["edge.example:7440"], 200),
        (["[2001:db8::1]:7440"], 200),
        ([""], 200),
        ([], 400),
        (["edge", "edge"], 400),
        (["edge", "other"], 400),
        (["edge other"], 400),
        (["edge/path"], 400),
        (["user@edge"], 400),
        (["edge:port"], 400),
        (["edge, other"], 400),
    ],
)
async def test_a_request_names_one_host(
    world: World, tenant: Tenant, hosts: list[str], status: int
) -> None:
    cid = world.chain.add(b"hello")
    fields = [("X-API-Key", tenant.key), *(("Host", host) for host in hosts)]
    async with world.edge(lease_credits=1000) as edge:
        answers = [await _ask(edge, object_path(cid), *fields)]
        await edge.leased(cid, tenant)
        await edge.cached(cid)
        await edge.get(object_path(cid), tenant)  # opens the file
        before = edge.at_once
        answers.append(await _ask(edge, object_path(cid), *fields))
        assert edge.at_once - before == (status == 200), "the shorter way"
    assert [answer.status for answer in answers] == [status, status]
    assert all(answer.one("date") for answer in answers)


async def test_what_is_not_http_is_refused_with_a_date(edge: RunningEdge) -> None:
    client = RawClient(edge.host, edge.port)
    answer = await asyncio.to_thread(client.ask, "NO METHOD", "/", [("Host", "edge")])
    assert (answer.status, bool(answer.one("date"))) == (400, True)


def test_a_host_is_read_in_linear_time() -> None:
    assert not is_host(b"a" * 60_000 + b"/")
    assert not is_host(b"[" + b":" * 60_000)
