"""The front door for proxies that deliver by themselves: admitted once, paid by report."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from tollmesh.auth.v1 import auth_pb2

from services.auth.errors import (
    CredentialMalformedError,
    CredentialMissingError,
    ScopeMissingError,
)
from services.credits.errors import InsufficientCreditError
from services.edge.admission import Client
from services.edge.door.door import CaptureOutcome, Door
from services.edge.door.requests import GuestRequest
from services.edge.errors import RateLimitedError
from services.rpc.errors import OverloadedError
from tests.edge.conftest import TERMS, RunningEdge, Tenant, World, object_path

KIBIBYTE = 1024


def a_request(key: str | None = None, *, estimate: int = 1000, path: str = "/film") -> GuestRequest:
    key = uuid.uuid4().hex if key is None else key
    return GuestRequest("GET", "films.example", path, "proxy-1", key, estimate)


def client(tenant: Tenant) -> Client:
    return Client(tenant.key)


@pytest.fixture
def door(edge: RunningEdge) -> Door:
    return edge.edge.door


async def test_what_is_reported_is_paid_and_the_rest_given_back(door: Door, tenant: Tenant) -> None:
    before = (await tenant.balance()).available
    ticket = await door.admit(client(tenant), a_request(estimate=100 * KIBIBYTE))
    assert ticket.account_id == tenant.account_id
    assert (ticket.amount, ticket.currency, ticket.available) == (200, "credit", before - 200)
    assert door.capture(ticket.id, 30 * KIBIBYTE, final=False) is CaptureOutcome.NOTED
    assert door.capture(ticket.id, 70 * KIBIBYTE, final=True) is CaptureOutcome.SETTLED
    assert await tenant.paid_bytes() == [70 * KIBIBYTE]
    assert (await tenant.balance()).available == before - 140


async def test_a_report_is_cumulative_and_repeated_without_harm(door: Door, tenant: Tenant) -> None:
    ticket = await door.admit(client(tenant), a_request())
    door.capture(ticket.id, 700, final=False)
    door.capture(ticket.id, 300, final=False)
    assert door.capture(ticket.id, 700, final=True) is CaptureOutcome.SETTLED
    assert door.capture(ticket.id, 700, final=True) is CaptureOutcome.REPEATED
    assert door.capture(ticket.id, 900, final=False) is CaptureOutcome.REPEATED
    assert await tenant.paid_bytes() == [700]


async def test_a_ticket_of_nobody_is_said_to_be_unknown(door: Door, tenant: Tenant) -> None:
    ticket = await door.admit(client(tenant), a_request())
    body, _, seal = ticket.id.rpartition("~")
    forged = body.replace(tenant.account_id, "acc-of-another") + "~" + seal
    for text in ("", "nonsense", "~" * 8, forged, "é", ticket.id[:-1], ticket.id + "A" * 2000):
        assert door.capture(text, 1, final=True) is CaptureOutcome.UNKNOWN
    door.capture(ticket.id, 0, final=True)
    assert await tenant.paid() == []


async def test_the_same_request_of_the_same_proxy_is_admitted_once(
    door: Door, tenant: Tenant, world: World
) -> None:
    request = a_request()
    tickets = await asyncio.gather(*(door.admit(client(tenant), request) for _ in range(8)))
    assert len({ticket.id for ticket in tickets}) == 1
    assert (await door.admit(client(tenant), request)).id == tickets[0].id
    elsewhere = await door.admit(client(tenant), request._replace(node="proxy-2"))
    other = await world.tenant()
    others = await door.admit(client(other), request)
    assert len({tickets[0].id, elsewhere.id, others.id}) == 3
    for ticket in (tickets[0], elsewhere, others):
        door.capture(ticket.id, 10, final=True)
    assert await tenant.paid_bytes() == [10, 10]
    assert await other.paid_bytes() == [10]


async def test_requests_without_a_key_are_each_admitted(door: Door, tenant: Tenant) -> None:
    first = await door.admit(client(tenant), a_request(""))
    second = await door.admit(client(tenant), a_request(""))
    assert first.id != second.id
    for ticket in (first, second):
        door.capture(ticket.id, 10, final=True)
    assert await tenant.paid_bytes() == [10, 10]


async def test_who_no_longer_waits_pays_nothing(door: Door, tenant: Tenant, world: World) -> None:
    await world.credit_service.stop()
    waiting = [
        asyncio.create_task(door.admit(client(tenant), a_request(key))) for key in ("", "one")
    ]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await world.credit_service.start()
    assert await tenant.paid() == []
    assert (await tenant.balance()).held == 0


async def test_more_than_the_estimate_is_paid_too(door: Door, tenant: Tenant) -> None:
    ticket = await door.admit(client(tenant), a_request(estimate=100))
    door.capture(ticket.id, 5_000, final=False)
    door.capture(ticket.id, 70_000, final=False)
    assert door.capture(ticket.id, 70_001, final=True) is CaptureOutcome.SETTLED
    assert await tenant.paid_bytes() == [70_001]


async def test_beyond_the_balance_what_was_set_aside_is_taken(world: World, door: Door) -> None:
    tenant = await world.tenant(credit=1000)
    ticket = await door.admit(client(tenant), a_request(estimate=450 * KIBIBYTE))
    door.capture(ticket.id, 5_000 * KIBIBYTE, final=True)
    await tenant.paid()
    assert (await tenant.balance()).available == 100


async def test_of_an_object_that_is_known_here_the_size_is_set_aside(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(bytes(345 * KIBIBYTE))
    await edge.get(object_path(cid), tenant)
    await edge.cached(cid)
    request = a_request(path=f"{object_path(cid)}?download")
    ticket = await edge.edge.door.admit(client(tenant), request)
    assert ticket.amount == 690
    edge.edge.door.capture(ticket.id, 45, final=True)
    assert await tenant.paid_bytes() == [345 * KIBIBYTE, 45]
    assert (await tenant.paid())[1].resource == object_path(cid).removeprefix("/objects/")


async def test_of_what_is_not_known_the_setting_says_how_much(world: World, tenant: Tenant) -> None:
    async with world.edge(guest_estimate_bytes=77 * KIBIBYTE) as edge:
        door = edge.edge.door
        ticket = await door.admit(client(tenant), a_request()._replace(estimate_bytes=None))
        assert ticket.amount == 154
        door.capture(ticket.id, 0, final=True)


async def test_a_request_that_costs_nothing_needs_no_report(door: Door, tenant: Tenant) -> None:
    ticket = await door.admit(client(tenant), a_request()._replace(method="HEAD"))
    assert (ticket.id, ticket.amount) == ("", 0)
    assert door.capture(ticket.id, 0, final=True) is CaptureOutcome.UNKNOWN


async def test_refusals_are_those_of_the_services(world: World, door: Door) -> None:
    poor = await world.tenant(credit=10)
    with pytest.raises(InsufficientCreditError) as refused:
        await door.admit(client(poor), a_request(estimate=KIBIBYTE * 1000))
    assert refused.value.metadata["needed"] == "2000"
    assert (await poor.balance()).held == 0
    with pytest.raises(CredentialMissingError):
        await door.admit(Client(""), a_request())
    with pytest.raises(CredentialMalformedError):
        await door.admit(Client("not-a-key"), a_request())
    writer = await world.tenant(scopes=(auth_pb2.SCOPE_UPLOAD,))
    with pytest.raises(ScopeMissingError):
        await door.admit(client(writer), a_request())
    ticket = await door.admit(client(writer), a_request()._replace(method="PUT"))
    door.capture(ticket.id, 5, final=True)
    [entry] = await writer.paid()
    assert (entry.metered.meter, entry.metered.quantity) == ("upload", 5)


async def test_an_account_has_so_many_requests_at_once(door: Door, tenant: Tenant) -> None:
    most = TERMS.concurrent_requests
    tickets = [await door.admit(client(tenant), a_request()) for _ in range(most)]
    with pytest.raises(RateLimitedError):
        await door.admit(client(tenant), a_request())
    door.capture(tickets[0].id, 0, final=True)
    tickets[0] = await door.admit(client(tenant), a_request())
    for ticket in tickets:
        door.capture(ticket.id, 0, final=True)
    assert await tenant.paid() == []


async def test_there_are_only_so_many_tickets(world: World, tenant: Tenant) -> None:
    async with world.edge(guest_tickets=2) as edge:
        door = edge.edge.door
        tickets = [await door.admit(client(tenant), a_request()) for _ in range(2)]
        with pytest.raises(OverloadedError):
            await door.admit(client(tenant), a_request())
        for ticket in tickets:
            door.capture(ticket.id, 1, final=True)
        door.capture((await door.admit(client(tenant), a_request())).id, 1, final=True)
        assert await tenant.paid_bytes() == [1, 1, 1]
