"""What REDbot says of objects: nothing is wrong, and each warning is one that we know."""

from __future__ import annotations

import pytest
from tollmesh.chain.v1 import chain_pb2

from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes
from tests.support.fake_chain import NETWORK, cid_of
from tests.support.redbot import errors, judged, warnings

PNG = b"\x89PNG\r\n\x1a\n"
TEXT = b"The same words again and again. " * 3000
GOOD = {"CL_CORRECT", "CONTENT_TYPE_OPTIONS", "DATE_CORRECT", "INM_304", "RANGE_CORRECT"}

KNOWN = {
    # style-src has it, so that a page is shown with its style; scripts are forbidden by default-src
    # and by sandbox. REDbot does not tell the two apart.
    "CSP_UNSAFE_INLINE",
}
"""Warnings that stay; docs/delivery.md explains them too."""


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        (TEXT, {"name": "words.txt", "media_type": "text/plain; charset=utf-8"}),
        (TEXT, {"name": "na\u00efve \U0001f389.html", "media_type": "text/html"}),
        (PNG + some_bytes(300_000), {"media_type": "image/png"}),
        (PNG + some_bytes(300), {"finality": chain_pb2.FINALITY_LATEST}),
    ],
)
async def test_redbot_finds_nothing_wrong_with_objects(
    world: World, tenant: Tenant, data: bytes, facts: dict[str, object]
) -> None:
    cid = world.chain.add(data, **facts)
    async with world.edge(lease_credits=1_000_000) as edge:
        for path in (object_path(cid), f"/downloads/{cid}"):  # a miss, then a hit
            findings = await judged(f"{edge.url}{path}", tenant.headers)
            assert errors(findings) == []
            assert [each for each in warnings(findings) if each.name not in KNOWN] == []
            assert {each.name for each in findings} >= GOOD
            await edge.cached(cid)


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("HEAD", {}),
        ("GET", {"Range": "bytes=0-99"}),
        ("GET", {"Range": "bytes=999999999-"}),
        ("GET", {"If-Match": '"other"'}),
        ("GET", {"If-None-Match": "*"}),
        ("GET", {"Want-Content-Digest": "sha-256=1", "Origin": "https://app.example"}),
        ("OPTIONS", {}),
        ("DELETE", {}),
    ],
)
async def test_redbot_finds_nothing_wrong_with_special_requests(
    world: World, edge: RunningEdge, tenant: Tenant, method: str, fields: dict[str, str]
) -> None:
    cid = world.chain.add(TEXT, media_type="text/plain; charset=utf-8")
    findings = await judged(f"{edge.url}{object_path(cid)}", tenant.headers | fields, method=method)
    assert errors(findings) == []
    assert [each for each in warnings(findings) if each.name not in KNOWN] == []


PREFLIGHT = {"Origin": "https://app.example", "Access-Control-Request-Method": "PUT"}


@pytest.mark.parametrize(
    ("method", "fields", "name"),
    [
        # RFC 9110, section 15.3.7.2, forbids Content-Range there.
        ("GET", {"Range": "bytes=0-99,300-399"}, "PARTIAL_WITHOUT_RANGE"),
        # It does not look at the request, so it cannot know that this is one.
        ("OPTIONS", PREFLIGHT, "CORS_PREFLIGHT_ONLY"),
    ],
)
async def test_redbot_is_wrong_about_these(
    world: World,
    edge: RunningEdge,
    tenant: Tenant,
    method: str,
    fields: dict[str, str],
    name: str,
) -> None:
    cid = world.chain.add(TEXT)
    url = f"{edge.url}{object_path(cid)}"
    found = errors(await judged(url, tenant.headers | fields, method=method))
    assert [each.name for each in found] == [name]


@pytest.mark.parametrize(
    "path", [f"/objects/{NETWORK}/{cid_of(b'absent')}", "/nothing", "/healthz", "/openapi.json"]
)
async def test_redbot_finds_nothing_wrong_with_other_answers(
    edge: RunningEdge, tenant: Tenant, path: str
) -> None:
    for headers in ({}, tenant.headers):
        findings = await judged(f"{edge.url}{path}", headers)
        assert errors(findings) == []
        assert [each for each in warnings(findings) if each.name not in KNOWN] == []


async def test_redbot_finds_nothing_wrong_with_an_empty_object(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"")
    findings = await judged(f"{edge.url}{object_path(cid)}", tenant.headers)
    assert errors(findings) + warnings(findings) == []
