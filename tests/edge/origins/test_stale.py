"""Stale answers: validated, served while they are, or in the place of an origin that fails."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import aiohttp
import pytest

from tests.edge.conftest import until
from tests.edge.origins.conftest import Fronted
from tests.support.http_origin import Request, Script, answer, head


@pytest.fixture
def options() -> dict[str, Any]:
    return {"stale_if_error_s": 3600}


def old(body: bytes, cache_control: str, **fields: str) -> Script:
    """An answer that is 100 s old when it comes."""
    return answer(200, body, cache_control=cache_control, age="100", **fields)


async def test_a_304_renews_what_is_stored(fronted: Fronted) -> None:
    fronted.origin.on("/a", old(b"body", "max-age=50", etag='"1"', x_kept="a", x_new="old"))
    assert (await fronted.get("/a")).body == b"body"
    fronted.origin.on("/a", answer(304, cache_control="max-age=60", etag='"1"', x_new="new"))
    second = await fronted.get("/a")
    assert fronted.origin.requests[-1]["if-none-match"] == '"1"'
    assert (second.status, second.body) == (200, b"body")
    assert (second.headers["x-kept"], second.headers["x-new"]) == ("a", "new")
    assert "fwd=stale; fwd-status=304" in second.headers["cache-status"]
    third = await fronted.get("/a")
    assert third.headers["cache-status"].startswith('"test"; hit')
    assert fronted.origin.asked("/a") == 2


async def test_another_answer_takes_the_place_of_what_is_stored(fronted: Fronted) -> None:
    fronted.origin.on("/a", old(b"old", "max-age=50", etag='"1"'))
    await fronted.get("/a")
    fronted.origin.on("/a", answer(200, b"new", cache_control="max-age=60", etag='"2"'))
    assert (await fronted.get("/a")).body == b"new"
    assert (await fronted.get("/a")).body == b"new"
    assert fronted.origin.asked("/a") == 2


async def test_a_304_about_something_else_is_not_believed(fronted: Fronted) -> None:
    fronted.origin.on("/a", old(b"old", "max-age=50", etag='"1"'))
    await fronted.get("/a")

    async def confused(request: Request, writer: asyncio.StreamWriter) -> None:
        if request["if-none-match"]:
            await answer(304, etag='"other"')(request, writer)
        else:
            await answer(200, b"new", etag='"other"')(request, writer)

    fronted.origin.on("/a", confused)
    assert (await fronted.get("/a")).body == b"new"


async def test_stale_while_revalidate_answers_at_once_and_asks_once(fronted: Fronted) -> None:
    fronted.origin.on("/a", old(b"old", "max-age=50, stale-while-revalidate=1000"))
    await fronted.get("/a")
    gate = asyncio.Event()

    async def later(request: Request, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await answer(200, b"new", cache_control="max-age=60")(request, writer)

    fronted.origin.on("/a", later)
    answers = await asyncio.gather(*(fronted.get("/a") for _ in range(10)))
    assert {each.body for each in answers} == {b"old"}
    assert int(answers[0].headers["age"]) >= 100
    gate.set()

    async def renewed() -> bool:
        return (await fronted.get("/a")).body == b"new"

    await until(renewed)
    assert fronted.origin.asked("/a") == 2


def _is_longer(requests: list[Request], than: int) -> bool:
    return len(requests) > than


async def test_asking_in_the_background_leaves_nothing_behind(fronted: Fronted) -> None:
    stale = "max-age=50, stale-while-revalidate=1000"
    fronted.origin.on("/a", old(b"old", stale, etag='"1"'))
    await fronted.get("/a")
    unstored = answer(200, bytes(1000), cache_control="no-store")
    renewed = answer(304, cache_control=stale, age="100")
    # More often than there may be connections, and than there are ways to end.
    for script in [unstored, renewed, answer(500)] * 40:
        before = len(fronted.origin.requests)
        fronted.origin.on("/a", script)
        assert (await fronted.get("/a")).body == b"old"
        await until(partial(_is_longer, fronted.origin.requests, before))
    origins = fronted.edge.edge.origins
    assert origins is not None
    assert origins.purge("site") == 1
    assert origins.stored_bytes == (0, 0)


@pytest.mark.parametrize(
    ("cache_control", "status"),
    [
        ("max-age=50", 200),
        ("max-age=50, stale-if-error=1000", 200),
        ("max-age=50, stale-if-error=10", 502),
        ("s-maxage=50", 502),
        ("s-maxage=50, stale-if-error=1000", 200),
        ("max-age=50, must-revalidate", 502),
        ("max-age=50, proxy-revalidate", 502),
        ("max-age=50, no-cache, stale-if-error=1000", 502),
    ],
)
async def test_a_stale_answer_stands_in_for_an_origin_that_is_gone(
    fronted: Fronted, cache_control: str, status: int
) -> None:
    fronted.origin.on("/a", old(b"kept", cache_control, etag='"1"'))
    await fronted.get("/a")
    await fronted.origin.stop()
    second = await fronted.get("/a")
    assert second.status == status
    if status == 200:
        assert second.body == b"kept"
        assert "stale-if-error" in second.headers["cache-status"]
    else:
        assert second.json()["reason"] == "DEPENDENCY_UNAVAILABLE"


@pytest.mark.parametrize(
    ("cache_control", "expected"),
    [
        ("max-age=50", (503, b"sorry")),
        ("max-age=50, stale-if-error=1000", (200, b"kept")),
        ("max-age=50, must-revalidate, stale-if-error=1000", (503, b"sorry")),
    ],
)
async def test_it_stands_in_for_a_5xx_only_where_the_origin_said_so(
    fronted: Fronted, cache_control: str, expected: tuple[int, bytes]
) -> None:
    fronted.origin.on("/a", old(b"kept", cache_control))
    await fronted.get("/a")
    fronted.origin.on("/a", answer(503, b"sorry"))
    second = await fronted.get("/a")
    assert (second.status, second.body) == expected


async def test_a_broken_answer_is_neither_served_as_whole_nor_kept(fronted: Fronted) -> None:
    async def breaking(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {"cache-control": "max-age=60", "content-length": "100"}) + b"part")
        await writer.drain()
        writer.close()

    fronted.origin.on("/a", breaking)
    with pytest.raises(aiohttp.ClientPayloadError):
        await fronted.get("/a")
    fronted.origin.on("/a", answer(200, b"whole", cache_control="max-age=60"))
    assert (await fronted.get("/a")).body == b"whole"


async def test_a_broken_chunked_answer_is_seen_as_broken(fronted: Fronted) -> None:
    async def breaking(_: Request, writer: asyncio.StreamWriter) -> None:
        fields = {"cache-control": "max-age=60", "transfer-encoding": "chunked"}
        writer.write(head(200, fields) + b"4\r\npart\r\n")
        await writer.drain()
        writer.close()

    fronted.origin.on("/a", breaking)
    with pytest.raises(aiohttp.ClientPayloadError):
        await fronted.get("/a")
    fronted.origin.on("/a", answer(200, b"whole", cache_control="max-age=60"))
    assert (await fronted.get("/a")).body == b"whole"
