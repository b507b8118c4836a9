"""Uploads over HTTP: published, paid for once, refused early."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tollmesh.chain.v1 import chain_pb2

from services.chain.errors import NetworkUnavailableError
from services.edge.settings import MEBIBYTE
from tests.edge.conftest import RunningEdge, Tenant, World, some_bytes, until
from tests.support.fake_chain import NETWORK, cid_of
from tests.support.raw_reader import RawReader

PATH = f"/objects/{NETWORK}"


async def post(
    edge: RunningEdge,
    tenant: Tenant,
    data: bytes | AsyncIterator[bytes],
    path: str = PATH,
    **headers: str,
) -> tuple[int, dict[str, Any], Any]:
    body = io.BytesIO(data) if isinstance(data, bytes) else data
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with edge.session.post(path, data=body, headers=tenant.headers | named) as response:
        return response.status, await response.json(content_type=None), response.headers


async def test_an_upload_is_published_and_paid_for(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(3_000_000)
    status, answer, headers = await post(edge, tenant, data, f"{PATH}?name=file%20%C3%A4.bin")
    cid = cid_of(data)
    assert status == 201
    assert answer == {
        "network": NETWORK,
        "cid": cid,
        "size_bytes": 3_000_000,
        "state": "pending",
        "amount": 11_719,
        "currency": "credit",
    }
    assert headers["Location"] == f"/objects/{NETWORK}/{cid}"
    [(_, stored, name)] = world.chain.published.values()
    assert (stored == data, name) == (True, "file ä.bin")
    [entry] = await tenant.paid()
    assert (entry.amount, entry.metered.meter, entry.metered.quantity) == (
        11_719,
        "upload",
        3_000_000,
    )


async def test_the_status_of_an_upload_is_told(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    _, answer, _ = await post(edge, tenant, b"hello")
    cid = answer["cid"]
    for path in (f"{PATH}/{cid}/status", f"/{cid}/status"):
        status = (await edge.get(path, tenant)).json()
        assert (status["state"], status["nodes_total"]) == ("pending", 1)
        assert status["update_time"].endswith("Z")
    world.chain.states[cid] = chain_pb2.PUBLICATION_STATE_FINALIZED
    assert (await edge.get(f"{PATH}/{cid}/status", tenant)).json()["state"] == "finalized"


async def test_the_same_key_again_is_paid_once(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    answers = [
        await post(edge, tenant, b"hello" * 1000, Idempotency_Key="order 17".replace(" ", "-"))
        for _ in range(3)
    ]
    assert [status for status, *_ in answers] == [201] * 3
    assert len({str(answer) for _, answer, _ in answers}) == 1
    assert len(world.chain.published) == 1
    assert await tenant.paid_bytes() == [5000]


async def test_the_same_key_at_the_same_time_is_paid_once(
    edge: RunningEdge, tenant: Tenant
) -> None:
    answers = await asyncio.gather(
        *(post(edge, tenant, b"hello" * 1000, Idempotency_Key="k") for _ in range(5))
    )
    assert {status for status, *_ in answers} == {201}
    assert await tenant.paid_bytes() == [5000]


async def test_a_key_for_something_else_is_409(edge: RunningEdge, tenant: Tenant) -> None:
    await post(edge, tenant, b"hello", Idempotency_Key="k")
    status, answer, _ = await post(edge, tenant, b"other!", Idempotency_Key="k")
    assert (status, answer["reason"]) == (409, "REQUEST_ID_REUSED")
    status, answer, _ = await post(edge, tenant, b"olleh", Idempotency_Key="k")
    assert (status, answer["reason"]) == (409, "REQUEST_ID_REUSED")
    assert await tenant.paid_bytes() == [5]


async def test_a_key_is_the_accounts_own(world: World, edge: RunningEdge, tenant: Tenant) -> None:
    other = await world.tenant()
    assert (await post(edge, tenant, b"hello", Idempotency_Key="k"))[0] == 201
    assert (await post(edge, other, b"other!", Idempotency_Key="k"))[0] == 201


async def test_a_failed_upload_is_free_and_can_be_repeated_with_its_key(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    world.chain.publish_failures = [NetworkUnavailableError(), NetworkUnavailableError()]
    for _ in range(2):
        status, answer, headers = await post(edge, tenant, b"hello", Idempotency_Key="k")
        assert (status, answer["reason"]) == (503, "NETWORK_UNAVAILABLE")
        assert headers["Retry-After"] == "1"
        assert await tenant.paid() == []
    assert (await post(edge, tenant, b"hello", Idempotency_Key="k"))[0] == 201
    assert await tenant.paid_bytes() == [5]
    assert (await post(edge, tenant, b"hello", Idempotency_Key="k"))[0] == 201
    assert await tenant.paid_bytes() == [5]


async def test_without_credit_nothing_is_taken(world: World, edge: RunningEdge) -> None:
    tenant = await world.tenant(credit=10)
    status, answer, headers = await post(edge, tenant, bytes(5000))
    assert (status, answer["reason"]) == (402, "INSUFFICIENT_CREDIT")
    assert headers["Connection"] == "close"
    assert world.chain.published == {}


async def test_without_a_length_it_is_411(edge: RunningEdge, tenant: Tenant) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"hello"

    status, answer, _ = await post(edge, tenant, chunks())
    assert (status, answer["reason"]) == (411, "INVALID_ARGUMENT")


async def test_what_is_too_large_is_413_before_it_is_sent(world: World, tenant: Tenant) -> None:
    async with world.edge(max_upload_bytes=1000) as edge:
        status, answer, _ = await post(edge, tenant, bytes(1001), Expect="100-continue")
        assert (status, answer["reason"]) == (413, "OBJECT_TOO_LARGE")
        assert answer["metadata"] == {"limit_bytes": "1000"}
        assert (await post(edge, tenant, bytes(1000)))[0] == 201


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"{PATH}?name={'n' * 256}", {}),
        (PATH, {"Idempotency_Key": "x" * 256}),
        (f"{PATH}?name=%FF", {}),
    ],
)
async def test_what_is_malformed_is_400(
    edge: RunningEdge, tenant: Tenant, path: str, headers: dict[str, str]
) -> None:
    status, answer, _ = await post(edge, tenant, b"hello", path, **headers)
    assert (status, answer["reason"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="plain.txt"', "plain.txt"),
        ("attachment; filename*=UTF-8''na%C3%AFve.txt", "naïve.txt"),
        ("attachment; filename=\"a.txt\"; filename*=UTF-8''b.txt", "b.txt"),
        ("attachment", ""),
    ],
)
async def test_the_name_is_taken_from_content_disposition(
    world: World, edge: RunningEdge, tenant: Tenant, header: str, name: str
) -> None:
    assert (await post(edge, tenant, b"hello", Content_Disposition=header))[0] == 201
    assert [each for *_, each in world.chain.published.values()] == [name]


async def test_an_uploader_that_goes_away_pays_nothing(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    reader = RawReader(edge.host, edge.port)
    head = [
        f"POST {PATH} HTTP/1.1",
        "Host: edge",
        f"Authorization: Bearer {tenant.key}",
        f"Content-Length: {MEBIBYTE}",
    ]
    await asyncio.to_thread(reader._socket.sendall, "\r\n".join([*head, "", "half"]).encode())

    async def is_held() -> bool:
        return (await tenant.balance()).held > 0

    await until(is_held)
    reader.close()
    assert await tenant.paid() == []
    assert world.chain.published == {}


async def test_an_empty_file_can_be_uploaded(edge: RunningEdge, tenant: Tenant) -> None:
    status, answer, _ = await post(edge, tenant, b"")
    assert (status, answer["size_bytes"], answer["amount"]) == (201, 0, 0)
