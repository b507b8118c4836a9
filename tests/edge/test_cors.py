"""What web pages of other origins may read, and OPTIONS."""

from __future__ import annotations

import asyncio

import pytest

from services.edge.settings import EdgeSettings
from services.process.settings import ValidationError
from tests.edge.conftest import RunningEdge, Tenant, World, object_path
from tests.support.fake_chain import NETWORK, cid_of

PAGE = "https://app.example"
OBJECT = object_path(cid_of(b"hello"))


def _ask(method: str = "GET", origin: str = PAGE) -> dict[str, str]:
    return {"Origin": origin, "Access_Control_Request_Method": method}


async def test_any_page_may_read_what_its_key_opens(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    world.chain.add(b"hello")
    for fields in ({}, {"Origin": PAGE}):
        answer = await edge.get(OBJECT, tenant, **fields)
        assert answer.headers.getall("Access-Control-Allow-Origin") == ["*"]
        assert answer.headers["Access-Control-Expose-Headers"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Origin" not in ",".join(answer.headers.getall("Vary", []))


async def test_a_page_sees_errors_too(edge: RunningEdge) -> None:
    for path in (OBJECT, "/nothing/here/at/all", "/healthz"):
        answer = await edge.get(path, Origin=PAGE)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (OBJECT, "GET, HEAD, DELETE, OPTIONS"),
        (f"/objects/{NETWORK}", "POST, OPTIONS"),
        (f"/pins/{NETWORK}/{cid_of(b'x')}", "PUT, DELETE, OPTIONS"),
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/nothing/here/at/all", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_preflight_is_answered_at_every_path_without_a_key(
    edge: RunningEdge, path: str, methods: str
) -> None:
    answer = await edge.get(path, None, "OPTIONS", **_ask("PUT"))
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Allow-Methods"] == methods
    assert answer.headers["Access-Control-Allow-Headers"] == "*, Authorization"
    assert answer.headers["Access-Control-Max-Age"] == "7200"
    assert answer.headers["Allow"] == methods


async def test_only_the_pages_that_are_named_may_read(world: World, tenant: Tenant) -> None:
    world.chain.add(b"hello")
    async with world.edge(cors_origins=[PAGE, "http://localhost:3000"]) as edge:
        for origin in (PAGE, "http://localhost:3000"):
            answer = await edge.get(OBJECT, tenant, Origin=origin)
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert "Origin" in answer.headers.getall("Vary")
        for fields in ({"Origin": "https://other.example"}, {"Origin": "null"}, {}):
            answer = await edge.get(OBJECT, tenant, **fields)
            assert answer.status == 200
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert "Origin" in answer.headers.getall("Vary"), "a cache must know why"
        refused = await edge.get(OBJECT, None, "OPTIONS", **_ask(origin="https://other.example"))
        assert "Access-Control-Allow-Origin" not in refused.headers


@pytest.mark.parametrize("origins", [["*"], [PAGE], []])
@pytest.mark.parametrize("fields", [{}, {"Origin": PAGE}, {"Origin": "https://other.example"}])
async def test_hits_that_are_answered_at_once_say_the_same(
    world: World, tenant: Tenant, origins: list[str], fields: dict[str, str]
) -> None:
    cid = world.chain.add(b"hello")
    async with world.edge(cors_origins=origins, lease_credits=1000) as edge:
        await edge.leased(cid, tenant)
        await edge.cached(cid)
        await edge.get(object_path(cid), tenant)  # opens the file
        before = edge.at_once
        long_way = {"Want_Repr_Digest": "sha-256=1"}
        answers = [
            await edge.get(object_path(cid), tenant, **fields, **way) for way in ({}, {}, long_way)
        ]
        # Where pages are told apart, only what no page asks for is answered at once.
        assert edge.at_once - before == (0 if fields and origins == [PAGE] else 2)
    names = ("Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Vary")
    said = [[answer.headers.getall(name, []) for name in names] for answer in answers]
    assert all(each == said[0] for each in said)


async def test_no_page_may_read_when_none_is_named(world: World, tenant: Tenant) -> None:
    world.chain.add(b"hello")
    async with world.edge(cors_origins=[]) as edge:
        answer = await edge.get(OBJECT, tenant, Origin=PAGE)
        assert answer.status == 200
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
        assert "Origin" not in ",".join(answer.headers.getall("Vary", []))


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "HTTPS://A", ""])
def test_what_is_no_origin_is_refused_at_the_start(world: World, origin: str) -> None:
    with pytest.raises(ValidationError, match="must be an origin"):
        EdgeSettings.model_validate({**world.settings().model_dump(), "cors_origins": [origin]})


async def test_options_says_what_may_be_done(edge: RunningEdge) -> None:
    answer = await edge.get(OBJECT, None, "OPTIONS")
    assert (answer.status, answer.headers["Allow"]) == (204, "GET, HEAD, DELETE, OPTIONS")
    assert "Content-Length" not in answer.headers
    assert (await edge.get("/nothing/here/at/all", None, "OPTIONS")).status == 404


async def test_another_method_is_405_and_hears_what_is_allowed(edge: RunningEdge) -> None:
    for method in ("POST", "PUT", "PATCH", "TRACE"):
        answer = await edge.get(OBJECT, None, method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, DELETE, OPTIONS")
        assert answer.headers["Cache-Control"] == "no-store"


async def test_options_of_the_server_as_a_whole(edge: RunningEdge) -> None:
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    writer.write(b"OPTIONS * HTTP/1.1\r\nHost: edge\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 204 ")
    assert b"\r\nallow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" in head
    writer.close()
    await writer.wait_closed()
