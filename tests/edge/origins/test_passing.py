"""What goes through: every method, bodies as streams, interim answers, redirects, paths."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
from tollmesh.auth.v1 import auth_pb2

from tests.edge.conftest import World, until
from tests.edge.origins.conftest import Fronted
from tests.support.http_origin import HttpOrigin, Request, answer, head

CACHEABLE = {"cache_control": "max-age=60"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_every_method_goes_through_with_its_body(fronted: Fronted, method: str) -> None:
    fronted.origin.on("/a", answer(200, b"done"))
    body = os.urandom(300_000)
    async with fronted.edge.session.request(method, "/origins/site/a?b=c", data=body) as response:
        assert (response.status, await response.read()) == (200, b"done")
    (request,) = fronted.origin.requests
    assert (request.method, request.target, request.body) == (method, "/a?b=c", body)


async def test_a_body_of_unknown_length_is_passed_on_as_it_comes(fronted: Fronted) -> None:
    fronted.origin.on("/a", answer(200, b"done"))
    gate = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first "
        await gate.wait()
        yield b"last"

    sending = asyncio.create_task(
        fronted.edge.session.post("/origins/site/a", data=pieces()).__aenter__()
    )
    gate.set()
    response = await sending
    assert await response.read() == b"done"
    assert fronted.origin.requests[0].body == b"first last"


@pytest.mark.parametrize("method", ["TRACE"])
async def test_what_would_show_our_own_fields_does_not(fronted: Fronted, method: str) -> None:
    assert (await fronted.get("/a", method)).status == 405
    assert fronted.origin.requests == []


async def test_interim_answers_are_passed_on(fronted: Fronted) -> None:
    async def hinting(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(103, {"link": "</a.css>; rel=preload"}))
        writer.write(head(200, {"content-length": "2"}) + b"ok")

    fronted.origin.on("/a", hinting)
    reader, writer = await asyncio.open_connection(fronted.edge.host, fronted.edge.port)
    writer.write(b"GET /origins/site/a HTTP/1.1\r\nHost: edge\r\n\r\n")
    interim = await reader.readuntil(b"\r\n\r\n")
    assert interim == b"HTTP/1.1 103 Said\r\nlink: </a.css>; rel=preload\r\n\r\n"
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/b?c=d", "/origins/site/b?c=d"),
        ("b", "/origins/site/x/b"),
        ("{origin}/b", "/origins/site/b"),
        ("https://elsewhere.example/b", "https://elsewhere.example/b"),
    ],
)
async def test_redirects_within_the_origin_lead_through_the_edge(
    fronted: Fronted, location: str, expected: str
) -> None:
    there = location.format(origin=fronted.origin.url)
    fronted.origin.on("/x/a", answer(302, location=there))
    path = "/origins/site/x/a"
    async with fronted.edge.session.get(path, allow_redirects=False) as response:
        assert (response.status, response.headers["location"]) == (302, expected)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"/origins/site/a%20b/%C3%A4?q=%2F", "/a%20b/%C3%A4?q=%2F"),
        (b"/origins/site", "/"),
        (b"/origins/site/", "/"),
        (b"/origins/site//a", "//a"),
        (b"/origins/site/a/./b/../c", "/a/c"),
        (b"/origins/site/../../a", "/a"),
        (b"/origins/site/%2e%2e/a/%2E", "/a/"),
        (b"/origins/site/a/..", "/"),
    ],
)
async def test_paths_are_resolved_and_otherwise_left_alone(
    fronted: Fronted, sent: bytes, expected: str
) -> None:
    await _raw(fronted, sent)
    assert [request.target for request in fronted.origin.requests] == [expected]


@pytest.mark.parametrize("sent", [b"/origins/site/..%2fa", b"/origins/site/a/..%5c..%5cb"])
async def test_a_path_that_may_lead_elsewhere_is_refused(fronted: Fronted, sent: bytes) -> None:
    assert (await _raw(fronted, sent)).startswith(b"HTTP/1.1 400 ")
    assert fronted.origin.requests == []


async def _raw(fronted: Fronted, target: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(fronted.edge.host, fronted.edge.port)
    writer.write(b"GET %s HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n" % target)
    answered = await reader.read()
    writer.close()
    return answered


async def test_an_unknown_origin_is_not_found(fronted: Fronted) -> None:
    assert (await fronted.edge.get("/origins/other/a")).status == 404
    assert (await fronted.edge.get("/origins")).status == 404
    for path in (b"/origins%2Fsite", b"/origins%2Fa/site"):
        assert (await _raw(fronted, path)).startswith(b"HTTP/1.1 404 ")
    assert fronted.origin.requests == []


async def test_a_request_that_has_been_here_before_is_refused(fronted: Fronted) -> None:
    fronted.origin.on("/a", answer(200, b"body"))
    await fronted.get("/a", via="1.0 fred, 1.1 tollmesh-eu-0011aabb")
    via = fronted.origin.requests[0]["via"]
    assert via is not None
    assert via.startswith("1.0 fred, 1.1 tollmesh-eu-0011aabb, 1.1 tollmesh-test-")
    refused = await fronted.get("/a", via=via)
    assert (refused.status, refused.json()["reason"]) == (508, "INVALID_ARGUMENT")
    many = ", ".join(f"1.1 tollmesh-eu-{each}" for each in range(8))
    assert (await fronted.get("/a", via=many)).status == 508


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "FROBNICATE"])
async def test_an_unsafe_request_makes_what_is_stored_invalid(
    fronted: Fronted, method: str
) -> None:
    for path in ("/a", "/b", "/c", "/d"):
        fronted.origin.on(path, answer(200, b"old", **CACHEABLE))
        await fronted.get(path)
    changed = answer(200, b"", location="/b", content_location=f"{fronted.origin.url}/c")
    fronted.origin.on("/a", changed)
    if method == "FROBNICATE":
        method = "M-SEARCH"
    await fronted.get("/a", method)
    for path in ("/a", "/b", "/c", "/d"):
        fronted.origin.on(path, answer(200, b"new", **CACHEABLE))
    got = [(await fronted.get(path)).body for path in ("/a", "/b", "/c", "/d")]
    assert got == [b"new", b"new", b"new", b"old"]


async def test_an_answer_to_post_may_be_one_to_get(fronted: Fronted) -> None:
    for path, said in (("/a", CACHEABLE), ("/b", {}), ("/c", CACHEABLE)):
        location = "/elsewhere" if path == "/c" else path
        fronted.origin.on(path, answer(200, b"posted", content_location=location, **said))
        assert (await fronted.get(path, "POST")).body == b"posted"
        fronted.origin.on(path, answer(200, b"got"))
    got = [(await fronted.get(path)).body for path in ("/a", "/b", "/c")]
    assert got == [b"posted", b"got", b"got"]


async def test_an_unsafe_request_that_fails_changes_nothing(fronted: Fronted) -> None:
    fronted.origin.on("/a", answer(200, b"old", **CACHEABLE))
    await fronted.get("/a")
    fronted.origin.on("/a", answer(500))
    await fronted.get("/a", "POST")
    assert (await fronted.get("/a")).body == b"old"


async def test_what_was_on_its_way_when_it_was_made_invalid_is_not_kept(fronted: Fronted) -> None:
    gate = asyncio.Event()

    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.method == "GET":
            await gate.wait()
        await answer(200, b"old", **CACHEABLE)(request, writer)

    fronted.origin.on("/a", slow)
    getting = asyncio.create_task(fronted.get("/a"))
    await until(lambda: fronted.origin.asked("/a") == 1)
    await fronted.get("/a", "PUT")
    gate.set()
    assert (await getting).body == b"old"
    fronted.origin.on("/a", answer(200, b"new", **CACHEABLE))
    assert (await fronted.get("/a")).body == b"new"


async def test_a_head_that_fits_renews_and_one_that_does_not_ages_what_is_stored(
    fronted: Fronted,
) -> None:
    stale = {"cache_control": "max-age=50", "age": "100"}
    fronted.origin.on("/a", answer(200, b"body", etag='"1"', x="old", **stale))
    await fronted.get("/a")
    fronted.origin.on("/a", answer(200, b"body", etag='"1"', x="new", **CACHEABLE))
    assert (await fronted.get("/a", "HEAD")).headers["content-length"] == "4"
    renewed = await fronted.get("/a")
    assert (renewed.headers["x"], renewed.headers["cache-status"][:11]) == ("new", '"test"; hit')
    assert [request.method for request in fronted.origin.requests] == ["GET", "HEAD"]
    fronted.origin.on("/a", answer(200, b"other", etag='"2"', **CACHEABLE))
    await fronted.get("/a", "HEAD", cache_control="no-cache")
    assert (await fronted.get("/a")).body == b"other"


async def test_administrators_purge_a_target_or_an_origin(fronted: Fronted, world: World) -> None:
    administrator = await world.tenant(credit=0, scopes=(auth_pb2.SCOPE_ADMIN,))
    for path in ("/a?x", "/b", "/c"):
        fronted.origin.on(path.partition("?")[0], answer(200, b"old", **CACHEABLE))
        await fronted.get(path)

    async def purge(path: str, key: str) -> tuple[int, object]:
        answered = await fronted.get(path, "PURGE", x_api_key=key)
        return answered.status, answered.json().get("purged")

    reader = await world.tenant()
    assert await purge("/a?x", reader.key) == (403, None)
    assert (await fronted.get("/a?x", "PURGE")).status == 401
    assert await purge("/a?x", administrator.key) == (200, 1)
    assert await purge("/a?x", administrator.key) == (200, 0)
    assert await purge("/", administrator.key) == (200, 0)
    await fronted.get("/a?x")
    assert fronted.origin.asked("/a?x") == 2
    assert await purge("", administrator.key) == (200, 3)
    assert {request.method for request in fronted.origin.requests} == {"GET"}


PREFLIGHT = {"origin": "https://page.example", "access_control_request_method": "PUT"}


async def test_which_pages_may_read_is_the_origins_affair(fronted: Fronted) -> None:
    allowing = {"access_control_allow_origin": "https://page.example"}
    fronted.origin.on("/a", answer(204, b"", **allowing))
    for method in ("OPTIONS", "GET"):
        got = await fronted.get("/a", method, **PREFLIGHT)
        assert got.headers.getall("access-control-allow-origin") == ["https://page.example"]
    assert [request.method for request in fronted.origin.requests] == ["OPTIONS", "GET"]


async def test_where_a_key_is_needed_the_edge_says_which_pages_may_read(
    world: World, origin: HttpOrigin
) -> None:
    reader = await world.tenant()
    allowing = {"access_control_allow_origin": "*", "access_control_expose_headers": "X"}
    origin.on("/a", answer(200, b"body", **allowing))
    pages = ["https://page.example"]
    async with world.edge(origins={"site": {"url": origin.url}}, cors_origins=pages) as edge:
        asked = await edge.get("/origins/site/a", None, "OPTIONS", **PREFLIGHT)
        assert (asked.status, origin.requests) == (204, [])
        assert asked.headers["access-control-allow-origin"] == "https://page.example"
        got = await edge.get("/origins/site/a", reader, origin="https://page.example")
        assert got.headers.getall("access-control-allow-origin") == pages
        assert "X" not in got.headers.getall("access-control-expose-headers")


@pytest.mark.parametrize("cache_control", ["max-age=60", "no-store"])
async def test_who_speaks_http_1_0_gets_no_chunks(fronted: Fronted, cache_control: str) -> None:
    async def chunked(_: Request, writer: asyncio.StreamWriter) -> None:
        fields = {"transfer-encoding": "chunked", "cache-control": cache_control}
        writer.write(head(200, fields) + b"4\r\nbody\r\n0\r\n\r\n")

    fronted.origin.on("/a", chunked)
    reader, writer = await asyncio.open_connection(fronted.edge.host, fronted.edge.port)
    writer.write(b"GET /origins/site/a HTTP/1.0\r\nHost: edge\r\n\r\n")
    answered = await reader.read()
    writer.close()
    assert b"\r\ncontent-length: 4\r\n" in answered
    assert b"transfer-encoding" not in answered
    assert answered.endswith(b"\r\n\r\nbody")
