"""What the edge refuses over HTTP, and that a refusal costs nothing and tells nothing internal."""

from __future__ import annotations

import asyncio

import pytest
from tollmesh.auth.v1 import auth_pb2

from services.chain.errors import NetworkUnavailableError, ObjectCorruptError
from services.rpc.errors import DeadlineExceededError, InternalError, ServiceError
from tests.edge.conftest import Answer, RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.fake_chain import NETWORK, cid_of


def check(answer: Answer, status: int, reason: str) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    document = answer.json()
    assert (document["status"], document["reason"]) == (status, reason)
    assert document["title"]
    assert document["detail"]
    assert document["instance"].endswith(answer.headers["X-Request-Id"])


async def test_without_a_key_it_is_401(world: World, edge: RunningEdge) -> None:
    cid = world.chain.add(b"hello")
    answer = await edge.get(object_path(cid))
    check(answer, 401, "CREDENTIAL_MISSING")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="tollmesh"'


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": "tm_test_without_a_scheme"},
        {"X_API_Key": "tm_test_nonsense"},
        {"Authorization": "Bearer " + "x" * 600},
    ],
)
async def test_with_what_is_no_key_it_is_401(
    world: World, edge: RunningEdge, headers: dict[str, str]
) -> None:
    cid = world.chain.add(b"hello")
    answer = await edge.get(object_path(cid), None, **headers)
    check(answer, 401, "CREDENTIAL_MALFORMED")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


async def test_a_key_is_taken_from_either_header(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello")
    assert (await edge.get(object_path(cid), X_API_Key=tenant.key)).status == 200
    assert (await edge.get(object_path(cid), Authorization=f"bearer {tenant.key}")).status == 200


async def test_a_revoked_key_is_401(world: World, edge: RunningEdge, tenant: Tenant) -> None:
    cid = world.chain.add(b"hello")
    await world.auth.revoke(tenant.key_id)
    check(await edge.get(object_path(cid), tenant), 401, "CREDENTIAL_REVOKED")


async def test_decisions_are_used_again_for_as_long_as_they_say(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello")
    assert (await edge.get(object_path(cid), tenant)).status == 200
    await world.auth.revoke(tenant.key_id)
    assert (await edge.get(object_path(cid), tenant)).status == 200


async def test_a_key_without_the_scope_is_403(world: World, edge: RunningEdge) -> None:
    cid = world.chain.add(b"hello")
    tenant = await world.tenant(scopes=(auth_pb2.SCOPE_UPLOAD,))
    answer = await edge.get(object_path(cid), tenant)
    check(answer, 403, "SCOPE_MISSING")
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    pin = await edge.get(f"/pins/{NETWORK}/{cid}", tenant, "PUT")
    check(pin, 403, "SCOPE_MISSING")


async def test_a_suspended_account_is_403(world: World, edge: RunningEdge, tenant: Tenant) -> None:
    cid = world.chain.add(b"hello")
    await world.auth.set_state(tenant.account_id, auth_pb2.ACCOUNT_STATE_SUSPENDED)
    check(await edge.get(object_path(cid), tenant), 403, "ACCOUNT_SUSPENDED")


async def test_without_credit_it_is_402_and_says_how_much_is_missing(
    world: World, edge: RunningEdge
) -> None:
    cid = world.chain.add(some_bytes(10_240))
    tenant = await world.tenant(credit=7)
    answer = await edge.get(object_path(cid), tenant)
    check(answer, 402, "INSUFFICIENT_CREDIT")
    metadata = answer.json()["metadata"]
    assert (metadata["needed"], metadata["available"]) == ("20", "7")
    assert world.chain.reads == [], "nothing is fetched that nobody pays for"


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        (f"/objects/{NETWORK}/{cid_of(b'absent')}", 404, "OBJECT_NOT_FOUND"),
        (f"/objects/nowhere/{cid_of(b'absent')}", 404, "NETWORK_NOT_FOUND"),
        (f"/objects/NO!/{cid_of(b'absent')}", 404, "NETWORK_NOT_FOUND"),
        (f"/objects/{NETWORK}/bafkr6inonsense", 400, "CID_INVALID"),
        (f"/objects/{NETWORK}/{cid_of(b'absent').upper()}", 400, "CID_INVALID"),
        (f"/objects/{NETWORK}/{cid_of(b'absent')}/status", 404, "PUBLICATION_NOT_FOUND"),
        (f"/downloads/{cid_of(b'absent')}", 404, "OBJECT_NOT_FOUND"),
        (f"/{cid_of(b'absent')}/status", 404, "PUBLICATION_NOT_FOUND"),
        ("/", 404, "INVALID_ARGUMENT"),
        ("/objects", 404, "INVALID_ARGUMENT"),
        ("/objects/a/b/c/d", 404, "INVALID_ARGUMENT"),
        ("/objects//x", 404, "INVALID_ARGUMENT"),
    ],
)
async def test_what_is_not_there_is_told_apart(
    edge: RunningEdge, tenant: Tenant, path: str, status: int, reason: str
) -> None:
    answer = await edge.get(path, tenant)
    check(answer, status, reason)
    assert ("Retry-After" in answer.headers) == (reason == "OBJECT_NOT_FOUND")


async def test_other_methods_are_405_and_say_which_work(edge: RunningEdge) -> None:
    answer = await edge.get("/objects/a/b", method="PATCH")
    check(answer, 405, "INVALID_ARGUMENT")
    assert answer.headers["Allow"] == "GET, HEAD, DELETE, OPTIONS"
    assert (await edge.get("/pins/a/b")).headers["Allow"] == "PUT, DELETE, OPTIONS"


async def test_too_many_requests_of_an_account_are_429(world: World, edge: RunningEdge) -> None:
    tenant, other = await world.tenant(), await world.tenant()
    data = some_bytes(10_000)
    cid = world.chain.add(data)
    world.chain.objects[cid].pause(at=0)
    waiting = [asyncio.create_task(edge.get(object_path(cid), tenant)) for _ in range(100)]
    answer = await _first_refused(edge, cid, tenant)
    check(answer, 429, "RATE_LIMITED")
    assert answer.headers["Retry-After"] == "1"
    others = asyncio.create_task(edge.get(object_path(cid), other))
    world.chain.objects[cid].resume()
    assert {(await each).status for each in waiting} == {200}
    assert (await others).status == 200
    assert (await edge.get(object_path(cid), tenant)).status == 200


async def _first_refused(edge: RunningEdge, cid: str, tenant: Tenant) -> Answer:
    while True:
        answer = await edge.get(object_path(cid), tenant, "HEAD")
        if answer.status != 200:
            # HEAD has no body to look at.
            return await edge.get(object_path(cid), tenant)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ObjectCorruptError(), 502, "OBJECT_CORRUPT"),
        (NetworkUnavailableError(retry_after_s=3), 503, "NETWORK_UNAVAILABLE"),
        (DeadlineExceededError(), 504, "DEADLINE_EXCEEDED"),
        (InternalError(metadata={"incident_id": "abc"}), 500, "INTERNAL"),
    ],
)
async def test_what_goes_wrong_behind_is_told_and_free(
    world: World,
    edge: RunningEdge,
    tenant: Tenant,
    error: ServiceError,
    status: int,
    reason: str,
) -> None:
    cid = world.chain.add(b"hello")
    world.chain.objects[cid].failures = [(0, error)] * 10
    answer = await edge.get(object_path(cid), tenant)
    check(answer, status, reason)
    assert answer.headers.get("Retry-After") == ("3" if status == 503 else None)
    if status == 500:
        assert answer.json()["metadata"]["incident_id"]
    world.chain.stat_failure = error
    check(await edge.get(object_path(cid_of(b"x")), tenant), status, reason)
    assert await tenant.paid() == []


async def test_a_fault_of_ours_is_an_incident_and_nothing_more(
    world: World, edge: RunningEdge, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    cid = world.chain.add(b"hello")

    async def broken(*_: object) -> None:
        raise RuntimeError("the secret detail")

    monkeypatch.setattr(edge.edge.lookup, "find", broken)
    answer = await edge.get(object_path(cid), tenant)
    check(answer, 500, "INTERNAL")
    assert set(answer.json()["metadata"]) == {"incident_id"}
    assert b"secret" not in answer.body
    assert b"RuntimeError" not in answer.body


async def test_without_the_credit_service_it_is_503(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello")
    await world.credit_service.stop()
    answer = await edge.get(object_path(cid), tenant)
    check(answer, 503, "DEPENDENCY_UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) >= 1
    await world.credit_service.start()


async def test_a_meter_without_a_price_is_our_fault(
    world: World, edge: RunningEdge, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    cid = world.chain.add(b"hello")
    monkeypatch.setattr("services.edge.downloads.METER", "unpriced")
    answer = await edge.get(object_path(cid), tenant)
    check(answer, 500, "INTERNAL")
    assert b"unpriced" not in answer.body


async def test_health_needs_no_key(edge: RunningEdge) -> None:
    assert (await edge.get("/healthz")).json() == {"status": "alive"}
    assert (await edge.get("/readyz")).json() == {"status": "ready"}


async def test_too_many_requests_in_all_are_503(world: World) -> None:
    tenant = await world.tenant()
    cid = world.chain.add(b"hello")
    async with world.edge(max_concurrent_calls=1) as edge:
        world.chain.objects[cid].pause(at=0)
        first = asyncio.create_task(edge.get(object_path(cid), tenant))
        await until(lambda: world.chain.reading == 1)
        check(await edge.get(object_path(cid), tenant), 503, "OVERLOADED")
        assert (await edge.get("/healthz")).status == 200
        world.chain.objects[cid].resume()
        assert (await first).status == 200


async def test_a_request_id_and_a_trace_are_taken_over_when_harmless(edge: RunningEdge) -> None:
    answer = await edge.get("/healthz", X_Request_Id="mine-1")
    assert answer.headers["X-Request-Id"] == "mine-1"
    other = await edge.get("/healthz", X_Request_Id="not harmless\t")
    assert other.headers["X-Request-Id"] != "not harmless\t"
