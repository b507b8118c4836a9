"""nginx before a server of files, with deploy/nginx/front.conf: the edge admits and is told."""

from __future__ import annotations

import asyncio
import json

from tollmesh.auth.v1 import auth_pb2

from tests.edge.conftest import Tenant, World, some_bytes, until
from tests.edge.nginx.conftest import SECRET, Front, Origin
from tests.support.nginx import Nginx

SIZE = 300_000


async def test_what_was_received_is_what_is_paid(
    front: Front, origin: Origin, tenant: Tenant
) -> None:
    data = some_bytes(SIZE)
    path = origin.put("a", data)
    answer = await front.get(path, tenant)
    assert (answer.status, answer.body) == (200, data)
    assert int(answer.headers["Tollmesh-Cost"]) > 0
    assert answer.headers["Tollmesh-Currency"] == "credit"
    assert int(answer.headers["Tollmesh-Available"]) > 0
    [paid] = await tenant.paid()
    assert paid.metered.quantity == SIZE
    assert paid.resource == "127.0.0.1/a"


async def test_a_kept_connection_is_paid_answer_by_answer(
    front: Front, origin: Origin, tenant: Tenant
) -> None:
    sizes = [1, 70_000, 5, 300_000]
    for size in sizes:
        answer = await front.get(origin.put(f"f{size}", some_bytes(size)), tenant)
        assert len(answer.body) == size
    await until(lambda: _paid(tenant, len(sizes)))
    assert sorted(await tenant.paid_bytes()) == sorted(sizes)


async def _paid(tenant: Tenant, count: int) -> bool:
    return len(await tenant.paid_bytes()) == count


async def test_the_origin_never_sees_the_key(front: Front, origin: Origin, tenant: Tenant) -> None:
    path = origin.put("a", b"a")
    await front.get(path, tenant)
    await front.get(path, X_API_Key=tenant.key)
    for request in origin.seen:
        assert "Authorization" not in request.headers
        assert "X-API-Key" not in request.headers
        assert request.headers["Tollmesh-Account"] == tenant.account_id


async def test_without_a_key_it_is_401(front: Front, origin: Origin) -> None:
    answer = await front.get(origin.put("a", b"a"))
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="tollmesh"'
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["reason"] == "CREDENTIAL_MISSING"
    assert not origin.seen


async def test_without_credit_it_is_402_with_what_is_missing(
    front: Front, origin: Origin, world: World
) -> None:
    poor = await world.tenant(credit=0)
    answer = await front.get(origin.put("a", b"a"), poor)
    assert answer.status == 402
    problem = answer.json()
    assert problem["status"] == 402
    assert problem["reason"] == "INSUFFICIENT_CREDIT"
    assert int(problem["metadata"]["needed"]) > 0
    assert not origin.seen


async def test_a_suspended_account_is_403(
    front: Front, origin: Origin, world: World, tenant: Tenant
) -> None:
    await world.auth.set_state(tenant.account_id, auth_pb2.ACCOUNT_STATE_SUSPENDED)
    answer = await front.get(origin.put("a", b"a"), tenant)
    assert answer.status == 403
    assert answer.json()["reason"] == "ACCOUNT_SUSPENDED"
    assert not origin.seen


async def test_a_mistaken_secret_serves_nothing(front: Front, tenant: Tenant) -> None:
    answer = await front.edge.get(
        "/door/auth-request", tenant, X_Original_URI="/a", Tollmesh_Front="wrong"
    )
    assert answer.status == 403
    assert "Tollmesh-Ticket" not in answer.headers


async def test_without_credit_service_it_is_503(
    front: Front, origin: Origin, world: World, tenant: Tenant
) -> None:
    await world.credit_service.stop()
    answer = await front.get(origin.put("a", b"a"), tenant)
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert not origin.seen


async def test_who_leaves_before_the_answer_pays_nothing(
    front: Front, origin: Origin, tenant: Tenant
) -> None:
    path = origin.put("a", some_bytes(SIZE))
    asking = [asyncio.create_task(front.get(path, tenant)) for _ in range(20)]
    for number, task in enumerate(asking):
        await asyncio.sleep(0.001 * (number % 4))
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await until(lambda: front.edge.edge.door.open_tickets == 0, "every ticket is settled")
    paid = sum(await tenant.paid_bytes())
    assert paid <= SIZE * len(asking)


async def test_what_has_ended_takes_no_place_among_requests_in_flight(
    front: Front, origin: Origin, tenant: Tenant
) -> None:
    assert await front.many(origin.put("a", b"a"), tenant, 400, 20) == {200}
    await until(lambda: front.edge.edge.door.open_tickets == 0)


async def test_lines_may_be_posted(front: Front, tenant: Tenant) -> None:
    headers = tenant.headers | {
        "Tollmesh-Front": SECRET,
        "X-Forwarded-Uri": "/a",
        "X-Forwarded-Host": "files.example",
    }
    session = front.edge.session
    async with session.get("/door/authorize", headers=headers) as response:
        assert response.status == 204
        ticket = response.headers["Tollmesh-Ticket"]
    lines = [{"ticket": ticket, "sent_bytes": 1234}, {"ticket": "mine", "sent_bytes": 1}]
    body = "\n".join([*map(json.dumps, lines), "{", json.dumps({"sent_bytes": 5})])
    outcomes = []
    for _ in range(2):
        async with session.post("/door/captures", data=body, headers=headers) as response:
            outcomes.append((await response.json())["outcomes"])
    async with session.post("/door/captures", data=body, headers=tenant.headers) as response:
        assert response.status == 403
    assert outcomes[0] == ["settled", "unknown", "malformed: not JSON", "nothing"]
    assert outcomes[1] == ["repeated", "unknown", "malformed: not JSON", "nothing"]
    [paid] = await tenant.paid()
    assert (paid.metered.quantity, paid.resource) == (1234, "files.example/a")


async def test_a_log_that_is_rotated_is_read_to_its_end(
    front: Front, origin: Origin, tenant: Tenant
) -> None:
    path = origin.put("a", some_bytes(1000))
    for number in range(3):
        assert await front.many(path, tenant, 40, 10) == {200}
        assert isinstance(front.nginx, Nginx)
        front.nginx.rotate(number)
        assert await front.many(path, tenant, 40, 10) == {200}
    await until(lambda: front.edge.edge.door.open_tickets == 0)
    assert await tenant.paid_bytes() == [1000] * 240
