"""Credentials of ours stop at the edge; others, and cookies, go on only where that was wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.edge.conftest import World
from tests.edge.origins.conftest import Fronted
from tests.support.http_origin import HttpOrigin, answer

SECRET = "a-secret-of-the-tests-0123456789"
CACHEABLE = {"cache_control": "max-age=60"}


async def test_a_key_of_ours_never_reaches_the_origin(fronted: Fronted, world: World) -> None:
    reader = await world.tenant()
    fronted.origin.on("/a", answer(200, b"body", **CACHEABLE))
    for headers in (
        {"authorization": f"Bearer {reader.key}"},
        {"authorization": f"bearer  {reader.key}"},
        {"x_api_key": reader.key},
    ):
        for method in ("GET", "HEAD", "POST"):
            answered = await fronted.get("/a", method, cache_control="no-cache", **headers)
            assert answered.status == 200
    seen = repr([request.fields for request in fronted.origin.requests])
    assert len(fronted.origin.requests) == 9
    assert reader.key not in seen
    assert "tm_" not in seen


async def test_what_fronts_and_the_edge_say_to_one_another_stays_between_them(
    fronted: Fronted,
) -> None:
    told = {"tollmesh_ticket": "forged", "tollmesh_cost": "0", "x_accel_redirect": "/secret"}
    fronted.origin.on("/a", answer(200, b"body", x_kept="1", **told, **CACHEABLE))
    said = {"tollmesh_front": "the secret", "tollmesh_accel": "none", "tollmesh_request": "1"}
    for method in ("GET", "GET", "POST"):
        answered = await fronted.get("/a", method, **said)
        assert answered.headers["x-kept"] == "1"
        for name in told:
            assert name.replace("_", "-") not in answered.headers
    assert len(fronted.origin.requests) == 2
    assert "tollmesh-front" not in repr(fronted.origin.requests)
    assert "the secret" not in repr(fronted.origin.requests)


async def test_who_comes_with_a_key_of_ours_pays_by_it(fronted: Fronted, world: World) -> None:
    reader = await world.tenant()
    fronted.origin.on("/a", answer(200, b"body", **CACHEABLE))
    await fronted.get("/a", x_api_key=reader.key)
    assert await reader.paid_bytes() == [4]
    assert await fronted.sponsor.paid_bytes() == []
    # The origin has not seen the key, so its answer is for all.
    assert (await fronted.get("/a")).headers["cache-status"].startswith('"test"; hit')
    assert await fronted.sponsor.paid_bytes() == [4]


async def test_a_wrong_key_of_ours_is_refused_though_there_is_a_sponsor(fronted: Fronted) -> None:
    assert (await fronted.get("/a", x_api_key="tm_test_nonsense")).status == 401
    assert fronted.origin.requests == []


async def test_without_a_sponsor_a_key_is_needed(world: World, origin: HttpOrigin) -> None:
    reader = await world.tenant()
    origin.on("/a", answer(200, b"body"))
    async with world.edge(origins={"site": {"url": origin.url}}) as edge:
        assert (await edge.get("/origins/site/a")).status == 401
        foreign = await edge.get("/origins/site/a", None, authorization="Basic Zm9vOmJhcg==")
        assert foreign.status == 401
        assert origin.requests == []
        assert (await edge.get("/origins/site/a", reader)).body == b"body"


async def test_a_foreign_authorization_stays_here_and_is_not_stored_for_others(
    fronted: Fronted,
) -> None:
    fronted.origin.on("/a", answer(200, b"body", **CACHEABLE))
    await fronted.get("/a", authorization="Basic Zm9vOmJhcg==")
    assert fronted.origin.requests[-1]["authorization"] is None
    await fronted.get("/a")
    assert fronted.origin.asked("/a") == 2


async def test_cookies_stay_here_both_ways(fronted: Fronted) -> None:
    fronted.origin.on("/a", answer(200, b"body", set_cookie="id=1", **CACHEABLE))
    first = await fronted.get("/a", cookie="id=0")
    assert "set-cookie" not in first.headers
    assert fronted.origin.requests[-1]["cookie"] is None


async def test_what_clients_say_of_themselves_is_replaced(fronted: Fronted) -> None:
    fronted.origin.on("/a", answer(200, b"body"))
    claims = {"forwarded": "for=10.0.0.1", "x_forwarded_for": "10.0.0.1", "x_real_ip": "10.0.0.1"}
    await fronted.get("/a", connection="x-hop, keep-alive", x_hop="1", te="trailers", **claims)
    request = fronted.origin.requests[-1]
    assert (request["forwarded"] or "").startswith("for=127.0.0.1;host=")
    for name in ("x-forwarded-for", "x-real-ip", "x-hop", "te", "connection", "keep-alive"):
        assert request[name] is None, name
    assert request["host"] == fronted.origin.url.removeprefix("http://")


class TestBehindAFront:
    """An edge behind a server of the operator's, which names the reader."""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> dict[str, Any]:
        secret_file = tmp_path / "front.secret"
        secret_file.write_text(SECRET)
        return {"front_secret_file": secret_file}

    async def test_the_origin_is_told_of_the_reader(self, fronted: Fronted) -> None:
        fronted.origin.on("/a", answer(200, b"body"))
        await fronted.get("/a", tollmesh_front=SECRET, x_real_ip="10.0.0.1")
        assert (fronted.origin.requests[-1]["forwarded"] or "").startswith("for=10.0.0.1;host=")

    async def test_whoever_else_names_one_is_not_believed(self, fronted: Fronted) -> None:
        fronted.origin.on("/a", answer(200, b"body"))
        await fronted.get("/a", tollmesh_front=f"{SECRET}x", x_real_ip="10.0.0.1")
        assert (fronted.origin.requests[-1]["forwarded"] or "").startswith("for=127.0.0.1;host=")


class TestWhereThatIsWanted:
    """An origin whose options let credentials and cookies through."""

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"authorization": True, "cookies": True, "forwarded": False}

    async def test_they_go_on(self, fronted: Fronted, world: World) -> None:
        reader = await world.tenant()
        fronted.origin.on("/a", answer(200, b"body", set_cookie="id=1"))
        first = await fronted.get("/a", cookie="id=0", authorization="Basic Zm9vOmJhcg==")
        assert first.headers["set-cookie"] == "id=1"
        request = fronted.origin.requests[-1]
        assert (request["cookie"], request["authorization"]) == ("id=0", "Basic Zm9vOmJhcg==")
        assert request["forwarded"] is None
        await fronted.get("/a", authorization=f"Bearer {reader.key}")
        assert fronted.origin.requests[-1]["authorization"] is None

    async def test_a_key_of_ours_beside_another_credential_does_not(
        self, fronted: Fronted, world: World
    ) -> None:
        reader = await world.tenant()
        fronted.origin.on("/a", answer(200, b"body"))
        fields = [
            ("authorization", "Basic Zm9vOmJhcg=="),
            ("authorization", f"Bearer {reader.key}"),
        ]
        async with fronted.edge.session.get("/origins/site/a", headers=fields) as response:
            assert response.status == 200
        assert fronted.origin.requests[-1]["authorization"] == "Basic Zm9vOmJhcg=="
