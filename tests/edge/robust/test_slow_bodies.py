"""Bodies that stop arriving: the request ends, and what it held is free again."""

from __future__ import annotations

import asyncio

import pytest

from services.edge.http import exchange
from tests.edge.conftest import RunningEdge, Tenant, until
from tests.support.deadline import DEADLINE_S
from tests.support.fake_chain import NETWORK


async def test_an_upload_whose_body_stops_is_408_and_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, edge: RunningEdge, tenant: Tenant
) -> None:
    monkeypatch.setattr(exchange, "BODY_IDLE_S", 0.2)
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    head = f"POST /objects/{NETWORK} HTTP/1.1\r\nHost: e\r\nX-API-Key: {tenant.key}\r\n"
    writer.write(head.encode() + b"Content-Length: 9\r\n\r\nab")
    answer = await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()
    assert await tenant.paid_bytes() == []
    await until(lambda: not edge.edge.admission._in_flight, "its place is free again")
