"""How stored answers are served: Age, conditions, parts, fields, variants, requests' directives."""

from __future__ import annotations

import pytest

from tests.edge.origins.conftest import Fronted
from tests.support.http_origin import answer

CACHEABLE = {"cache_control": "max-age=600"}
MODIFIED = "Mon, 02 Nov 2026 10:00:00 GMT"


async def test_age_counts_on_from_what_the_origin_said(fronted: Fronted) -> None:
    fronted.origin.on("/a", answer(200, b"body", age="30", **CACHEABLE))
    assert int((await fronted.get("/a")).headers["age"]) >= 30
    hit = await fronted.get("/a")
    assert int(hit.headers["age"]) >= 30
    assert hit.headers["cache-status"].startswith('"test"; hit; ttl=5')


async def test_an_answer_that_the_origin_just_made_has_no_age(fronted: Fronted) -> None:
    fronted.origin.on("/a", answer(200, b"body", cache_control="no-store"))
    assert "age" not in (await fronted.get("/a")).headers


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ({"if_none_match": '"one"'}, 304),
        ({"if_none_match": 'W/"one"'}, 304),
        ({"if_none_match": '"x", "one"'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"x"'}, 200),
        ({"if_modified_since": MODIFIED}, 304),
        ({"if_modified_since": "Sun, 01 Nov 2026 10:00:00 GMT"}, 200),
        ({"if_none_match": '"x"', "if_modified_since": MODIFIED}, 200),
        ({"range": "bytes=1-2"}, 206),
        ({"range": "bytes=1-2", "if_range": '"one"'}, 206),
        ({"range": "bytes=1-2", "if_range": MODIFIED}, 206),
        ({"range": "bytes=1-2", "if_range": '"x"'}, 200),
        ({"range": "bytes=1-2", "if_range": 'W/"one"'}, 200),
        ({"range": "bytes=9-"}, 416),
        ({"range": "lines=1-2"}, 200),
    ],
)
async def test_conditions_and_ranges_are_answered_by_what_is_stored(
    fronted: Fronted, condition: dict[str, str], status: int
) -> None:
    fields = {"etag": '"one"', "last_modified": MODIFIED, "content_type": "text/plain"}
    fronted.origin.on("/a", answer(200, b"12345", **fields, **CACHEABLE))
    await fronted.get("/a")
    got = await fronted.get("/a", **condition)
    assert got.status == status
    assert got.body == {200: b"12345", 206: b"23", 304: b""}.get(status, got.body)
    if status in {200, 206, 304}:
        assert got.headers["etag"] == '"one"'
    if status == 206:
        assert got.headers["content-range"] == "bytes 1-2/5"
    assert fronted.origin.asked("/a") == 1


async def test_a_range_of_what_is_not_stored_is_the_origins_affair(fronted: Fronted) -> None:
    fronted.origin.on("/a", answer(206, b"23", content_range="bytes 1-2/5", **CACHEABLE))
    got = await fronted.get("/a", range="bytes=1-2")
    assert (got.status, got.body, got.headers["content-range"]) == (206, b"23", "bytes 1-2/5")
    assert fronted.origin.requests[0]["range"] == "bytes=1-2"
    fronted.origin.on("/a", answer(200, b"12345", **CACHEABLE))
    assert (await fronted.get("/a")).body == b"12345"  # the part was not taken for the whole


async def test_head_is_answered_by_a_stored_get(fronted: Fronted) -> None:
    fronted.origin.on("/a", answer(200, b"12345", **CACHEABLE))
    await fronted.get("/a")
    got = await fronted.get("/a", "HEAD")
    assert (got.status, got.body, got.headers["content-length"]) == (200, b"", "5")
    assert fronted.origin.asked("/a") == 1


@pytest.mark.parametrize(
    ("directives", "asked"),
    [
        ("no-cache", 2),
        ("max-age=0", 2),
        ("max-age=400", 1),
        ("min-fresh=700", 2),
        ("min-fresh=100", 1),
        ("only-if-cached", 1),
        ("max-stale=10", 1),
        ("something-else", 1),
    ],
)
async def test_requests_may_demand_freshness(fronted: Fronted, directives: str, asked: int) -> None:
    fronted.origin.on("/a", answer(200, b"body", **CACHEABLE))
    await fronted.get("/a")
    assert (await fronted.get("/a", cache_control=directives)).status == 200
    assert fronted.origin.asked("/a") == asked


async def test_only_if_cached_is_a_504_when_nothing_is(fronted: Fronted) -> None:
    refused = await fronted.get("/a", cache_control="only-if-cached")
    assert refused.status == 504
    assert fronted.origin.requests == []


async def test_variants_are_kept_side_by_side(fronted: Fronted) -> None:
    for language in ("de", "en"):
        fields = {"vary": "Accept-Language, X-Other", "content_language": language}
        fronted.origin.on("/a", answer(200, language.encode(), **fields, **CACHEABLE))
        assert (await fronted.get("/a", accept_language=language)).body == language.encode()
    for language in ("de", "en", "DE"):
        got = await fronted.get("/a", accept_language=language)
        assert got.body == language.lower().encode()
    assert fronted.origin.asked("/a") == 2
    await fronted.get("/a")
    assert fronted.origin.asked("/a") == 3


async def test_the_query_is_a_part_of_the_name(fronted: Fronted) -> None:
    fronted.origin.on("/a", answer(200, b"body", **CACHEABLE))
    for target in ("/a", "/a?x=1", "/a?x=2", "/a?x=1"):
        await fronted.get(target)
    assert [request.target for request in fronted.origin.requests] == ["/a", "/a?x=1", "/a?x=2"]


async def test_answers_without_a_date_get_one_and_keep_it(fronted: Fronted) -> None:
    fronted.origin.on("/a", answer(200, b"body", date="foo", **CACHEABLE))
    first = (await fronted.get("/a")).headers.getall("date")
    assert len(first) == 1
    assert first[0].endswith("GMT")
    assert (await fronted.get("/a")).headers.getall("date") == first


async def test_an_answer_says_where_it_has_been(fronted: Fronted) -> None:
    fields = {"via": "1.1 inner", "cache_status": "inner; hit", "keep_alive": "timeout=5"}
    fronted.origin.on("/a", answer(200, b"body", connection="x-hop", x_hop="1", **fields))
    got = await fronted.get("/a")
    assert got.headers["via"].startswith("1.1 inner, 1.1 tollmesh-test-")
    assert got.headers["cache-status"].startswith('inner; hit, "test"; fwd=uri-miss')
    for name in ("x-hop", "keep-alive"):
        assert name not in got.headers


async def test_missing_things_are_remembered_for_a_moment(fronted: Fronted) -> None:
    for _ in range(3):
        assert (await fronted.get("/missing")).status == 404
    assert fronted.origin.asked("/missing") == 1
