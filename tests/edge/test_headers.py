"""Headers of objects: validators, caching, names, media types."""

from __future__ import annotations

from email.message import Message

import pytest
from tollmesh.chain.v1 import chain_pb2

from services.edge.http.representation import content_disposition
from tests.edge.conftest import RunningEdge, Tenant, World, object_path
from tests.support.fake_chain import NETWORK

FINAL = "private, max-age=31536000, immutable"


async def test_an_object_carries_its_validator_and_what_it_is(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello", name="hello.txt", media_type="text/plain")
    answer = await edge.get(object_path(cid), tenant)
    assert answer.headers["ETag"] == f'"{cid}"'
    assert answer.headers["Cache-Control"] == FINAL
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"] == 'inline; filename="hello.txt"'
    assert answer.headers["Tollmesh-Currency"] == "credit"
    assert int(answer.headers["Tollmesh-Available"]) > 0
    assert "Content-Security-Policy" not in answer.headers
    assert answer.headers["Date"]
    assert answer.headers["X-Request-Id"]


async def test_what_is_not_final_is_not_declared_immutable(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    for finality in (chain_pb2.FINALITY_LATEST, chain_pb2.FINALITY_SAFE):
        cid = world.chain.add(b"new %d" % finality, finality=finality)
        answer = await edge.get(object_path(cid), tenant)
        assert answer.headers["Cache-Control"] == "private, no-cache"


async def test_the_same_object_again_is_304_and_free(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello")
    for method in ("GET", "HEAD"):
        answer = await edge.get(object_path(cid), tenant, method, If_None_Match=f'W/"{cid}"')
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["ETag"] == f'"{cid}"'
        assert answer.headers["Cache-Control"] == FINAL
        assert "Content-Length" not in answer.headers
    assert (await edge.get(object_path(cid), tenant, If_None_Match='"other"')).status == 200
    assert await tenant.paid_bytes() == [5]


async def test_if_match_of_something_else_is_412(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello")
    assert (await edge.get(object_path(cid), tenant, If_Match='"other"')).status == 412
    assert (await edge.get(object_path(cid), tenant, If_Match=f'"{cid}"')).status == 200


async def test_head_says_what_get_would_and_costs_nothing(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello", name="hello.txt")
    head = await edge.get(object_path(cid), tenant, "HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "5")
    got = await edge.get(object_path(cid), tenant)
    for name in ("ETag", "Cache-Control", "Content-Type", "Content-Disposition"):
        assert head.headers[name] == got.headers[name]
    assert await tenant.paid_bytes() == [5]


@pytest.mark.parametrize(
    ("path", "disposition"),
    [
        ("/objects/{network}/{cid}", "inline"),
        ("/objects/{network}/{cid}?download", "attachment"),
        ("/file/{cid}", "inline"),
        ("/file/{cid}?download", "attachment"),
        ("/downloads/{cid}", "attachment"),
        ("/downloads/{cid}?inline", "inline"),
    ],
)
async def test_each_path_shows_or_saves(
    world: World, edge: RunningEdge, tenant: Tenant, path: str, disposition: str
) -> None:
    cid = world.chain.add(b"hello", name="hello.txt")
    answer = await edge.get(path.format(network=NETWORK, cid=cid), tenant)
    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers["Content-Disposition"] == f'{disposition}; filename="hello.txt"'


@pytest.mark.parametrize(
    ("media_type", "sent", "sandboxed"),
    [
        ("text/html", "text/html", True),
        ("image/svg+xml", "image/svg+xml", True),
        ("application/xhtml+xml", "application/xhtml+xml", True),
        ("text/javascript", "text/javascript", True),
        ("image/png", "image/png", False),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8", False),
        ("text/html\r\nset-cookie: a=b", "application/octet-stream", False),
        ("nonsense", "application/octet-stream", False),
        ("", "application/octet-stream", False),
    ],
)
async def test_no_file_acts_in_the_name_of_the_edge(
    world: World, edge: RunningEdge, tenant: Tenant, media_type: str, sent: str, sandboxed: bool
) -> None:
    cid = world.chain.add(media_type.encode(), media_type=media_type)
    answer = await edge.get(object_path(cid), tenant)
    assert answer.headers["Content-Type"] == sent
    assert ("sandbox" in answer.headers.get("Content-Security-Policy", "")) == sandboxed
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("plain.txt", 'attachment; filename="plain.txt"'),
        ("two words.txt", 'attachment; filename="two words.txt"'),
        ("naïve.txt", "attachment; filename=\"naive.txt\"; filename*=UTF-8''na%C3%AFve.txt"),
        ("文件", "attachment; filename=\"file\"; filename*=UTF-8''%E6%96%87%E4%BB%B6"),
        ('a"b\\c', "attachment; filename=\"a_b_c\"; filename*=UTF-8''a%22b_c"),
        ("../../etc/passwd", 'attachment; filename="_.._etc_passwd"'),
        ("a\r\nset-cookie: x", 'attachment; filename="a__set-cookie: x"'),
        ("exe\u202etxt.doc", 'attachment; filename="exe_txt.doc"'),
        ("100%.txt", "attachment; filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
        ("\x00", 'attachment; filename="_"'),
        ("...", 'attachment; filename="file"'),
    ],
)
def test_names_are_safe_in_headers_and_on_disks(name: str, header: str) -> None:
    assert content_disposition("attachment", name) == header.encode()


@pytest.mark.parametrize("name", ["naïve résumé.pdf", "文件 名.txt", "emoji 🎉.png"])
async def test_unicode_names_arrive_whole(
    world: World, edge: RunningEdge, tenant: Tenant, name: str
) -> None:
    cid = world.chain.add(name.encode(), name=name)
    message = Message()
    answer = await edge.get(object_path(cid), tenant)
    message["Content-Disposition"] = answer.headers["Content-Disposition"].replace(
        answer.headers["Content-Disposition"].split(";")[1] + ";", ""
    )
    assert message.get_filename() == name


async def test_a_nameless_object_is_named_by_its_cid(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello", name="")
    answer = await edge.get(object_path(cid), tenant)
    assert answer.headers["Content-Disposition"] == f'inline; filename="{cid}"'
